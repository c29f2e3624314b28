/**
 * One operation in a process of its own, for file.mjs and fit.mjs: prints its time without the start of
 * Node, the most memory that the process ever had, and its result.
 *
 *   node bench/child.mjs '{"operation":"patch","input":"a.onnx","options":{"output":"b.onnx"}}'
 *
 * An operation on two models has an array of them as its input.
 */
const { operation, input, options } = JSON.parse(process.argv[2]);
const library = await import(`../dist/src/commands/${operation}.js`);
const start = performance.now();
const result = await library[operation](...[input].flat(), options);
const ms = performance.now() - start;
// KiB on Linux, and on macOS too: Node converts.
const maxRss = process.resourceUsage().maxRSS * 1024;
process.stdout.write(JSON.stringify({ ms, maxRss, result }));
