import { spawnSync } from 'node:child_process'
import { copyFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Builds the package in the current folder from nothing, before npm packs it: `dist` may hold chunks of earlier
 *  builds, and compiled files whose source is gone. */

const ROOT = path.dirname(fileURLToPath(import.meta.url))
const name = path.basename(process.cwd())

await rm('dist', { recursive: true, force: true })
await copyFile(path.join(ROOT, 'LICENSE'), 'LICENSE')
run(path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-b', `packages/${name}`)
if (name !== 'shared') run('build.ts', name)

function run(script: string, ...args: string[]): void {
  // what it says belongs on stderr: `npm pack --json` has stdout for itself
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: ROOT, stdio: ['ignore', 2, 2] })
  if (status !== 0) process.exit(status ?? 1)
}
