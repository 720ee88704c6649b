import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { replaceFile } from '@postern/shared/replace-file'

/** The file of our own beside the person's ssh configuration, and the one line in theirs that includes it. Every other
 *  byte of theirs stays, whatever its line ends, mode or place: `--uninstall` leaves what was there before. */

export interface ConfigFiles {
  /** `~/.ssh/config` */
  config: string
  /** `~/.ssh/postern.conf` */
  own: string
}

const HEADER = '# Written by `postern ssh-config --install`; `postern ssh-config --uninstall` takes it away.'
/** Notes for the way back. */
const CONFIG_MADE = '# There was no ssh configuration before.'
const FOLDER_MADE = '# There was no folder for it either.'
const MAX_BYTES = 8 * 1024 * 1024

export function configFiles(sshFolder: string): ConfigFiles {
  return { config: path.join(sshFolder, 'config'), own: path.join(sshFolder, 'postern.conf') }
}

/** Writes our file, then the line. Running it again changes only what is different.
 *  @throws SSH_FILE_FOREIGN when something else has the name of our file */
export function install(files: ConfigFiles, include: string, text: string): void {
  const before = readOwn(files.own)
  const theirs = readTheirs(files.config)
  const hasFolder = isThere(path.dirname(files.config))
  const notes =
    before === undefined
      ? [...(theirs ? [] : [CONFIG_MADE]), ...(hasFolder ? [] : [FOLDER_MADE])]
      : [CONFIG_MADE, FOLDER_MADE].filter((note) => before.includes(note))
  mkdirSync(path.dirname(files.own), { recursive: true, mode: 0o700 })
  replaceFile(files.own, [HEADER, ...notes, text].join('\n'))
  const bytes = theirs?.bytes ?? Buffer.alloc(0)
  if (findLine(bytes, include)) return
  const line = `${include}${lineEndOf(bytes)}`
  writeTheirs(theirs, files.config, Buffer.concat([Buffer.from(line), bytes]))
}

/** @returns false when nothing was installed */
export function uninstall(files: ConfigFiles, include: string): boolean {
  const own = readOwn(files.own)
  const theirs = readTheirs(files.config)
  const found = theirs && findLine(theirs.bytes, include)
  if (theirs && found) {
    const rest = Buffer.concat([theirs.bytes.subarray(0, found.start), theirs.bytes.subarray(found.end)])
    if (rest.length === 0 && own?.includes(CONFIG_MADE)) rmSync(files.config)
    else writeTheirs(theirs, files.config, rest)
  }
  rmSync(files.own, { force: true })
  if (own?.includes(FOLDER_MADE)) removeIfEmpty(path.dirname(files.own))
  return own !== undefined || found !== undefined
}

interface Theirs {
  /** Where the link leads, when it is one. */
  file: string
  bytes: Buffer
  mode: number
}

function readTheirs(config: string): Theirs | undefined {
  if (!isThere(config)) return undefined
  try {
    const file = realpathSync(config)
    const { mode, size } = statSync(file)
    if (size > MAX_BYTES) throw new Error('it is too large')
    return { file, bytes: readFileSync(file), mode: mode & 0o7777 }
  } catch (cause) {
    throw new PosternError('SSH_CONFIG_INVALID', `cannot read ${config}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

function writeTheirs(theirs: Theirs | undefined, config: string, bytes: Buffer): void {
  const file = theirs?.file ?? config
  const mode = theirs?.mode ?? 0o600
  try {
    replaceFile(file, bytes, mode)
    // the umask may have taken bits away
    chmodSync(file, mode)
  } catch (cause) {
    throw new PosternError('SSH_CONFIG_INVALID', `cannot write ${file}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** Our line with its line end, wherever the person has moved it. */
function findLine(bytes: Buffer, line: string): { start: number; end: number } | undefined {
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf('\n', start)
    const end = newline < 0 ? bytes.length : newline + 1
    if (bytes.subarray(start, end).toString('utf8').trim() === line) return { start, end }
    start = end
  }
  return undefined
}

function lineEndOf(bytes: Buffer): string {
  const newline = bytes.indexOf('\n')
  return newline > 0 && bytes[newline - 1] === 0x0d ? '\r\n' : '\n'
}

function readOwn(file: string): string | undefined {
  if (!isThere(file)) return undefined
  const text = lstatSync(file).isFile() ? readFileSync(file, 'utf8') : ''
  if (text.startsWith(HEADER)) return text
  throw new PosternError('SSH_FILE_FOREIGN', `${file} is not a file that postern made, and stays as it is`, {
    hint: 'move it away and run the command again',
  })
}

/** A link that leads nowhere is there, too. */
function isThere(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false }) !== undefined
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch {
    // something else has come into it
  }
}
