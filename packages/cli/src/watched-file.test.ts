import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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

test('what others may write, and what has no end, is not read', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'postern-watched-'))
  const file = path.join(folder, 'list.yaml')
  try {
    writeFileSync(file, 'text')
    chmodSync(file, 0o646)
    assert.throws(() => new WatchedFile(file).readNamed(), {
      code: 'USAGE_INVALID',
      message: `cannot read ${file}: everybody on this machine may write to it`,
      hint: `keep others from it: chmod o-w ${file}`,
    })
    chmodSync(file, 0o664)
    assert.equal(new WatchedFile(file).readNamed(), 'text')
    assert.throws(() => new WatchedFile('/dev/zero').readNamed(), {
      message: 'cannot read /dev/zero: it is larger than 1 MiB',
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
