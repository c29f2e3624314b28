/** Numbers and names as the inspect page shows them. */
import { type Markup, markup } from './markup.js';

/** 1234567 -> 1,234,567 */
export function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

/** 65536 -> 65.5 kB */
export function formatBytes(bytes: number): string {
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${power === 0 ? value : value.toPrecision(3)} ${UNITS[power]}`;
}

/** Three significant digits. */
export function formatNorm(norm: number): string {
  if (norm === 0 || !Number.isFinite(norm)) return String(norm);
  return norm >= 1000 && norm < 1e6 ? formatCount(Math.round(norm)) : norm.toPrecision(3);
}

/** A measured number in four significant digits. */
export function formatMeasure(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** 3725 -> 1 h 2 min */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** As many decimals as the largest of a column needs for three digits, so that points line up. */
export function formatAligned(norm: number, peak: number): string {
  if (norm === 0 || peak < 1e-5 || peak >= 1000 || !Number.isFinite(norm)) return formatNorm(norm);
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(peak)));
  const least = 10 ** -decimals;
  return norm < least / 2 ? `< ${least.toFixed(decimals)}` : norm.toFixed(decimals);
}

/** A dotted or slashed path: the part in which it differs from its neighbours stands out. */
export function pathOf(path: string): Markup {
  const at = Math.max(path.lastIndexOf('.'), path.lastIndexOf('/')) + 1;
  const above = path.slice(0, at).split(/(?<=[./])/);
  return markup`<bdi class="path">${above.map((part) => markup`${part}<wbr>`)}<b>${path.slice(at)}</b></bdi>`;
}
