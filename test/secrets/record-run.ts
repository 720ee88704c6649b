import type { ChildProcess } from 'node:child_process'
import { subscribe } from 'node:diagnostics_channel'
import { readFileSync } from 'node:fs'
import type { ClientRequest, IncomingMessage } from 'node:http'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { keepOutput, noteSecret, type OutputSource } from './run-record.ts'
import { MIN_SECRET_LENGTH, StoredSecrets, secretsOfJson } from './stored-secrets.ts'

/** Loaded before every test file, `--import='file:///…/record-run.ts?folder=…'`: keeps what the programs say that the
 *  test starts, whoever starts them, and notes the secrets that come by, in answers and in state folders. No test
 *  has to think of it, and nothing of what a test sees is changed. */

const MAX_ANSWER_BYTES = 65_536

const folder = new URL(import.meta.url).searchParams.get('folder')!
const stored = new StoredSecrets()
const stateFolders = new Set<string>()

subscribe('child_process', (message) => recordChild((message as { process: ChildProcess }).process))
subscribe('http.client.response.finish', (message) => {
  recordAnswer(message as { request: ClientRequest; response: IncomingMessage })
})
// before any folder is removed: handlers run in the order in which they were added
process.on('exit', () => {
  for (const stateFolder of stateFolders) readState(stateFolder)
})

interface SpawnOptions {
  args?: string[]
  envPairs?: string[]
}

function recordChild(child: ChildProcess): void {
  const start = child as unknown as { spawn(options: SpawnOptions): number }
  const spawn = start.spawn
  start.spawn = (options) => {
    const result = spawn.call(child, options)
    const command = options.args ?? []
    for (const stream of ['stdout', 'stderr'] as const) {
      const readable = child[stream]
      if (readable) copyChunks(readable, keepLazily({ test: testFile(), command, stream }))
    }
    const own = stateFoldersOf(options)
    for (const stateFolder of own) stateFolders.add(stateFolder)
    child.once('exit', () => own.forEach(readState))
    return result
  }
}

/** @returns a function that makes its file with the first chunk */
function keepLazily(source: OutputSource): (chunk: Uint8Array | string) => void {
  let keep: ((chunk: Uint8Array | string) => void) | undefined
  return (chunk) => {
    keep ??= keepOutput(folder, source)
    keep(chunk)
  }
}

/** Reads with whoever reads the stream: a listener for `data` would start it, and lose the first chunks of those who
 *  come later. */
function copyChunks(readable: Readable, take: (chunk: Uint8Array | string) => void): void {
  const push = readable.push
  readable.push = (chunk, encoding) => {
    if (chunk !== null && chunk.length > 0) take(chunk)
    return push.call(readable, chunk, encoding)
  }
}

function testFile(): string {
  return path.relative(process.cwd(), process.argv[1] ?? '')
}

/** POSTERN_HOME of a person or connector, and the folder of an edge's configuration. */
function stateFoldersOf({ args = [], envPairs = [] }: SpawnOptions): string[] {
  const home = envPairs.find((pair) => pair.startsWith('POSTERN_HOME='))?.slice('POSTERN_HOME='.length)
  const config = args[args.indexOf('--config') + 1]
  const isEdge = args.includes('--config') && config !== undefined && args.some(isEdgeProgram)
  return [...(home ? [home] : []), ...(isEdge ? dataFoldersOf(config) : [])]
}

function isEdgeProgram(argument: string): boolean {
  return /postern-edge(\.js)?$/.test(argument)
}

function dataFoldersOf(config: string): string[] {
  try {
    const { data_dir } = JSON.parse(readFileSync(config, 'utf8')) as { data_dir?: string }
    return [path.dirname(config), ...(data_dir ? [data_dir] : [])]
  } catch {
    return []
  }
}

function readState(stateFolder: string): void {
  for (const secret of stored.readFolder(stateFolder)) noteSecret(folder, secret)
}

function recordAnswer({ request, response }: { request: ClientRequest; response: IncomingMessage }): void {
  for (const line of response.headers['set-cookie'] ?? []) {
    note('cookie', /^[^=]*=([^;]*)/.exec(line)?.[1])
  }
  for (const address of [request.path, response.headers.location ?? '']) {
    note('authorization code', /[?&]code=([\w.~-]+)/.exec(address)?.[1])
  }
  if (!response.headers['content-type']?.includes('json')) return
  const chunks: Buffer[] = []
  let length = 0
  copyChunks(response, (chunk) => {
    length += chunk.length
    if (length <= MAX_ANSWER_BYTES) chunks.push(Buffer.from(chunk as Uint8Array))
  })
  response.once('end', () => {
    const secrets = secretsOfJson(Buffer.concat(chunks).toString('utf8'), 'private key') ?? []
    for (const secret of secrets) noteSecret(folder, secret)
  })
}

function note(kind: string, value: string | undefined): void {
  if (value !== undefined && value.length >= MIN_SECRET_LENGTH) noteSecret(folder, { kind, value })
}
