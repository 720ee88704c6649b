import { readFileSync, rmSync } from 'node:fs'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'
import { replaceFile } from '@postern/shared/replace-file'

/** Small JSON files that only their owner may read. Written whole or not at all (temporary file, fsync, rename);
 *  read with a check of every member. Checked by hand, because the warm start of `client tls` reads three of them and must
 *  not load a schema library for that. */

type Kind = 'string' | 'number' | 'object' | 'string?' | 'number?'
interface KindTypes {
  string: string
  number: number
  object: Record<string, unknown>
}
export type Shape = Readonly<Record<string, Kind>>
export type ShapeValue<S extends Shape> = {
  -readonly [K in keyof S as S[K] extends `${string}?` ? never : K]: S[K] extends keyof KindTypes
    ? KindTypes[S[K]]
    : never
} & {
  -readonly [K in keyof S as S[K] extends `${string}?` ? K : never]?: S[K] extends `${infer T extends
    keyof KindTypes}?`
    ? KindTypes[T]
    : never
}

/** @returns undefined when there is no such file
 *  @throws STATE_INVALID naming the file */
export function readStateFile<S extends Shape>(file: string, shape: S): ShapeValue<S> | undefined {
  const text = readText(file)
  if (text === undefined) return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw invalid(file, 'is not JSON', cause)
  }
  if (typeof value !== 'object' || value === null) throw invalid(file, 'is not an object')
  const members = value as Record<string, unknown>
  for (const [name, kind] of Object.entries(shape)) {
    const member = members[name]
    if (kind.endsWith('?') && member === undefined) continue
    const type: string = typeof member
    if (type !== kind.replace('?', '') || member === null) {
      throw invalid(file, `has no proper member "${name}"`)
    }
  }
  return members as ShapeValue<S>
}

/** Makes the folder too (0700). */
export function writeStateFile(file: string, value: object): void {
  try {
    replaceFile(file, `${JSON.stringify(value, null, 2)}\n`)
  } catch (cause) {
    const failure = describeDiskFailure(cause)
    throw new PosternError(
      'STATE_INVALID',
      `cannot write ${file}: ${failure?.reason ?? (cause as Error).message}`,
      {
        cause,
        hint: failure?.hint ?? 'make the folder writable, or name another one in POSTERN_HOME',
      },
    )
  }
}

export function removeState(fileOrFolder: string): void {
  rmSync(fileOrFolder, { force: true, recursive: true })
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw invalid(file, `cannot be read: ${(cause as Error).message}`, cause)
  }
}

function invalid(file: string, what: string, cause?: unknown): PosternError {
  return new PosternError('STATE_INVALID', `${file} ${what}`, { cause })
}
