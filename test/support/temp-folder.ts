import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
// ends what this process has started when it ends; before the folders below go
import '../../demo/program.ts'

const folders = new Set<string>()

process.on('exit', () => {
  for (const folder of folders)
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
})

/** A new folder that is removed when this process ends, whatever its end. Short, because a Unix socket's path
 *  may have 107 bytes. */
export function makeTempFolder(name = 'test'): string {
  const folder = mkdtempSync(path.join(tmpdir(), `postern-${name}-`))
  folders.add(folder)
  return folder
}
