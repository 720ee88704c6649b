import { createReadStream, readFileSync, statSync } from 'node:fs'
import { type Checkpoint, findCheckpoint, parseSigner } from '@postern/shared/audit/checkpoint'
import { ExportVerifier, type VerifiedExport, type VerifyOptions } from '@postern/shared/audit/verify'
import { PosternError } from '@postern/shared/errors'
import { unreadableFile } from '@postern/shared/unreadable-file'

/** Verifies an export without an edge and without a network. Reads it as a stream: a file may be larger than memory,
 *  a line may not. */

/** The largest record the edge can write is some megabytes: two long allow-lists. */
const MAX_LINE_BYTES = 16 * 1024 * 1024
const MAX_CHECKPOINT_FILE_BYTES = 64 * 1024 * 1024

/** @param file `-`: standard input
 *  @throws AUDIT_BROKEN · USAGE_INVALID the file cannot be read */
export async function verifyFile(file: string, options: VerifyOptions): Promise<VerifiedExport> {
  const verifier = new ExportVerifier(options)
  const input = file === '-' ? process.stdin : createReadStream(file)
  try {
    await eachLine(input, (line) => verifier.add(line))
  } catch (cause) {
    throw cause instanceof PosternError ? cause : unreadableFile(file, cause)
  }
  return verifier.finish()
}

async function eachLine(input: AsyncIterable<Buffer>, onLine: (line: string) => void): Promise<void> {
  let parts: Buffer[] = []
  let bytes = 0
  let lines = 0
  const take = (end: Buffer) => {
    lines += 1
    const line = decode(Buffer.concat([...parts, end]), lines)
    parts = []
    bytes = 0
    onLine(line)
  }
  for await (const chunk of input) {
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      start = end + 1
    }
    if (start === chunk.length) continue
    parts.push(chunk.subarray(start))
    bytes += chunk.length - start
    if (bytes > MAX_LINE_BYTES) throw broken(`line ${lines + 1}: it is longer than any record`, lines + 1)
  }
  if (bytes > 0) take(Buffer.alloc(0)) // a file that was cut off has half a line here
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decode(line: Buffer, number: number): string {
  try {
    return utf8.decode(line)
  } catch {
    throw broken(`line ${number}: it is not text in UTF-8`, number)
  }
}

function broken(message: string, line: number): PosternError {
  return new PosternError('AUDIT_BROKEN', message, { details: { line } })
}

/** Lines of an export, of `audit list --json` or of the edge's log, whatever else is among them.
 *  @throws USAGE_INVALID there is none in it */
export function readCheckpoints(file: string): Checkpoint[] {
  const text = readText(file)
  const found = [text, ...text.split('\n')].map(parseCheckpoint).filter((one) => one !== undefined)
  if (found.length === 0) throw new PosternError('USAGE_INVALID', `there is no checkpoint in ${file}`)
  return found
}

function parseCheckpoint(text: string): Checkpoint | undefined {
  try {
    return findCheckpoint(JSON.parse(text))
  } catch {
    return undefined // another line of a log
  }
}

/** @param text the key, or a file with it
 *  @throws USAGE_INVALID */
export function readSigner(text: string): string {
  const written = text.startsWith('ed25519:') ? text : readText(text)
  try {
    return parseSigner(written)
  } catch (cause) {
    throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} ${(cause as Error).message}`, { cause })
  }
}

function readText(file: string): string {
  try {
    if (statSync(file).size > MAX_CHECKPOINT_FILE_BYTES) throw new Error('it is too large')
    return readFileSync(file, 'utf8')
  } catch (cause) {
    throw unreadableFile(file, cause)
  }
}
