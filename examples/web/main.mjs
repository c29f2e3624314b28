// Prepares and serves the page: npm run example:web
import { prepare } from './prepare.mjs';
import { serve } from './serve.mjs';

const folder = 'out/web';
await prepare(folder);
const { url } = await serve(folder, Number(process.env.PORT ?? 8080));
console.log(`Open ${url} (Ctrl-C ends it)`);
