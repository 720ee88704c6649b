#!/usr/bin/env node
// Understood by every old Node, so that a wrong one gets a sentence and not a syntax error:
// no await out here.
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 21)) {
  process.stderr.write(`postern needs Node 24.21 or newer, this is ${process.versions.node}\n`)
  process.exitCode = 1
} else {
  void import('../dist/main.js')
}
