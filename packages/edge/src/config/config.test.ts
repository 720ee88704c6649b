import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { parse } from 'yaml'
import { parseConfig } from './parse.ts'
import { EXAMPLES, listKeys } from './schema.ts'

const FILES = {
  readSecret: () => 's3cret of some length',
  checkCertificate: () => {},
  readCa: () => '',
  checkProgram: () => {},
}
const parseText = (text: string) =>
  parseConfig(text, { name: 'edge.yaml', folder: '/etc/postern-edge', files: FILES })

interface Row {
  key: string
  initial: string
  example: string
}

/** The tables of docs/config.md, whose first column is a key. */
function readDocs(): Row[] {
  const text = readFileSync(new URL('../../../../docs/config.md', import.meta.url), 'utf8')
  const code = (cell: string) => /^`([^`]*)`$/.exec(cell)?.[1] ?? ''
  return text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.slice(2, -2).split(' | '))
    .map((cells) => ({ key: code(cells[0]!), initial: cells[2]!, example: code(cells[3]!) }))
}

/** A file with this value for each key. */
function writeFile(rows: readonly [string, string][]): string {
  const file: Record<string, unknown> = {}
  for (const [key, value] of rows) {
    const sections = key.split('.')
    const name = sections.pop()!
    let target = file
    for (const section of sections) {
      target[section] ??= {}
      target = target[section] as Record<string, unknown>
    }
    target[name] = parse(value)
  }
  return JSON.stringify(file) // JSON is YAML
}

/** The certificate is in files or comes by ACME: never both. */
const isTlsFile = (key: string) => key === 'tls.certificate_file' || key === 'tls.key_file'
const isAcme = (key: string) => key.startsWith('tls.acme.')
const isDev = (key: string) => key === 'identity.dev' || key === 'identity.unsafe_dev_identity'

describe('docs/config.md', () => {
  it('explains every key of the schema and no other', () => {
    assert.deepEqual(
      readDocs().map((row) => row.key),
      listKeys(),
    )
  })

  it('gives examples that are accepted', () => {
    const rows = readDocs().filter((row) => !isDev(row.key))
    for (const isOther of [isTlsFile, isAcme]) {
      const together = rows.filter(({ key }) => !isOther(key))
      parseText(writeFile(together.map(({ key, example }) => [key, example])))
    }
    parseText('{ domain: edge.localhost, listen: "127.0.0.1:0", identity: { dev: true } }')
  })

  it('says the defaults that hold', () => {
    const required = readDocs().filter((row) => row.initial === 'required' && !isTlsFile(row.key))
    const least: [string, string][] = required.map(({ key, example }) => [key, example])
    const defaults = readDocs().flatMap(({ key, initial }): [string, string][] => {
      const value = /^`([^`]*)`$/.exec(initial)?.[1]
      return value === undefined ? [] : [[key, value]]
    })
    assert.ok(defaults.length > 20)
    assert.deepEqual(parseText(writeFile([...least, ...defaults])), parseText(writeFile(least)))
  })

  it('has a smallest file that works', () => {
    const text = readFileSync(new URL('../../../../docs/config.md', import.meta.url), 'utf8')
    const config = parseText(/```yaml\n(.*?)```/s.exec(text)![1]!)
    assert.equal(config.dataDir, '/var/lib/postern-edge')
    assert.equal(config.identity.kind === 'upstream' && config.identity.clientSecret, FILES.readSecret())
  })
})

it('every problem can show an example that is accepted', () => {
  for (const key of listKeys()) assert.ok(EXAMPLES[key], key)
  for (const isOther of [isTlsFile, isAcme]) {
    const keys = listKeys().filter((key) => !isDev(key) && !isOther(key))
    parseText(writeFile(keys.map((key) => [key, EXAMPLES[key]!])))
  }
})
