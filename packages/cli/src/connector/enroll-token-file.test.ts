import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, describe, test } from 'node:test'
import { readEnrollToken } from './enroll-token-file.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'postern-token-'))
after(() => rmSync(folder, { recursive: true }))

const TOKEN = `postern_enroll_${'a-Z_9'.repeat(9).slice(0, 43)}`

function fileOf(text: string, mode = 0o600): string {
  const file = path.join(folder, 'token')
  rmSync(file, { force: true })
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

describe('the file of an enroll token', () => {
  test('is read, with or without a new line', () => {
    for (const text of [TOKEN, `${TOKEN}\n`, `\n  ${TOKEN}\r\n`]) {
      for (const mode of [0o600, 0o400]) assert.equal(readEnrollToken(fileOf(text, mode)), TOKEN)
    }
  })

  test('is refused when others could read or write it', () => {
    for (const mode of [0o640, 0o604, 0o620, 0o602, 0o644, 0o660, 0o666, 0o610]) {
      assert.throws(() => readEnrollToken(fileOf(TOKEN, mode)), { code: 'USAGE_INVALID', hint: /chmod 600/ })
    }
  })

  test("may show the mask of systemd's access list, in the folder of credentials only", (context) => {
    context.after(() => delete process.env.CREDENTIALS_DIRECTORY)
    process.env.CREDENTIALS_DIRECTORY = folder
    assert.equal(readEnrollToken(fileOf(TOKEN, 0o440)), TOKEN)
    assert.throws(() => readEnrollToken(fileOf(TOKEN, 0o444)), { code: 'USAGE_INVALID' })
    process.env.CREDENTIALS_DIRECTORY = path.join(folder, 'elsewhere')
    assert.throws(() => readEnrollToken(fileOf(TOKEN, 0o440)), { code: 'USAGE_INVALID' })
  })

  test('holds a token and nothing else, and what it holds is not repeated', () => {
    const others = [
      '',
      'none',
      'another secret',
      TOKEN.slice(1),
      `${TOKEN}x`,
      `${TOKEN} ${TOKEN}`,
      `# a\n${TOKEN}`,
    ]
    for (const text of others) {
      const file = fileOf(text)
      assert.throws(() => readEnrollToken(file), {
        code: 'ENROLL_TOKEN_INVALID',
        message: `${file} holds no enroll token`,
      })
    }
  })

  test('is there, is a file, and is not endless', () => {
    for (const file of [path.join(folder, 'missing'), folder, '/dev/zero', fileOf(TOKEN.repeat(99))]) {
      assert.throws(() => readEnrollToken(file), { code: 'USAGE_INVALID', message: /cannot read/ })
    }
  })
})
