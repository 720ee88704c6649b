import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'

/** Writes a new file that only this user may read. It is on the disk when this resolves; no part of it is left when
 *  it rejects.
 *  @throws STATE_INVALID with what to do, when the disk fails · EEXIST as it is */
export async function writePrivateFile(file: string, text: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600).catch((cause) => {
    throw explainDisk(file, cause)
  })
  try {
    await writeWhole(handle, text)
  } catch (cause) {
    await rm(file, { force: true })
    throw explainDisk(file, cause)
  }
}

async function writeWhole(handle: FileHandle, text: string): Promise<void> {
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Makes the folder, for this user only, and those above it.
 *  @throws STATE_INVALID */
export async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 }).catch((cause) => {
    throw explainDisk(folder, cause)
  })
}

/** What the disk has done to a file of the edge, for whoever runs it. Another error comes back as it is. */
export function explainDisk(file: string, cause: unknown): unknown {
  const failure = describeDiskFailure(cause)
  if (!failure) return cause
  return new PosternError('STATE_INVALID', `${file} cannot be written: ${failure.reason}`, {
    hint: failure.hint,
    cause,
  })
}

/** Readers see the old file or the new one, never a part; only this user may read it.
 *  @throws STATE_INVALID with what to do, when the disk fails */
export async function replacePrivateFile(file: string, text: string): Promise<void> {
  const draft = `${file}.${randomBytes(6).toString('hex')}`
  await writePrivateFile(draft, text)
  await rename(draft, file).catch(async (cause) => {
    await rm(draft, { force: true })
    throw explainDisk(file, cause)
  })
}
