/** Checksums of bytes: that of zip members (Node has it from 20.15 on only) and that of event files. */

type Checksum = (bytes: Uint8Array) => number;

/** CRC-32 as in ISO 3309, an unsigned number. */
export const crc32: Checksum = checksumOf(0xedb88320);

/** CRC-32C (Castagnoli) as in RFC 3720, an unsigned number. */
export const crc32c: Checksum = checksumOf(0x82f63b78);

/** @param polynomial with its bits reversed */
function checksumOf(polynomial: number): Checksum {
  const table = Int32Array.from({ length: 256 }, (_, byte) => {
    let remainder = byte;
    for (let bit = 0; bit < 8; bit++) {
      remainder = (remainder >>> 1) ^ (remainder & 1 ? polynomial : 0);
    }
    return remainder;
  });
  return (bytes) => {
    let crc = -1;
    for (let i = 0; i < bytes.length; i++) {
      crc = (crc >>> 8) ^ table[(crc ^ bytes[i]!) & 0xff]!;
    }
    return ~crc >>> 0;
  };
}
