import assert from 'node:assert/strict'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { WatchedFile } from './watched-file.ts'

test('a change right after the first read, a new file in its place, its end and its return are all seen', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-watched-'))
  const file = path.join(folder, 'list.yaml')
  const over = new AbortController()
  try {
    writeFileSync(file, 'one')
    const watched = new WatchedFile(file)
    assert.equal(watched.read(), 'one')
    writeFileSync(file, 'two') // before anybody follows
    const steps: [string, () => void][] = [
      ['two', () => {}],
      [
        'three',
        () => {
          writeFileSync(`${file}.new`, 'three')
          renameSync(`${file}.new`, file)
        },
      ],
      ['ENOENT', () => rmSync(file)],
      ['four', () => writeFileSync(file, 'four')],
    ]
    let heard = Promise.withResolvers<string>()
    const following = watched.follow({
      signal: over.signal,
      onText: async (text) => heard.resolve(text),
      onLost: (cause) => heard.resolve(String((cause as NodeJS.ErrnoException).code)),
    })
    for (const [expected, change] of steps) {
      change()
      assert.equal(await heard.promise, expected)
      heard = Promise.withResolvers()
    }
    over.abort()
    await following
  } finally {
    over.abort()
    rmSync(folder, { recursive: true })
  }
})
