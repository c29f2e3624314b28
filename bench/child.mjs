/**
 * One operation in a process of its own, for file.mjs: prints its time without the start of Node,
 * and the most memory that the process ever had.
 *
 *   node bench/child.mjs '{"operation":"patch","input":"a.onnx","options":{"output":"b.onnx"}}'
 */
const { operation, input, options } = JSON.parse(process.argv[2]);
const library = await import(`../dist/src/lora/${operation}.js`);
const start = performance.now();
await library[operation](input, options);
const ms = performance.now() - start;
// KiB on Linux, and on macOS too: Node converts.
process.stdout.write(JSON.stringify({ ms, maxRss: process.resourceUsage().maxRSS * 1024 }));
