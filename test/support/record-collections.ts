/** Goes before a program with `--import`: counts garbage collections, and says the number on stderr at SIGUSR2. */

const { PerformanceObserver } = process.getBuiltinModule('node:perf_hooks')
let collections = 0

new PerformanceObserver((list) => {
  collections += list.getEntries().length
}).observe({ entryTypes: ['gc'] })
process.on('SIGUSR2', () => process.stderr.write(`collections: ${collections}\n`))
