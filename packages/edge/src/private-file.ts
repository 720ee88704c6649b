import { randomBytes } from 'node:crypto'
import { statSync } from 'node:fs'
import { type FileHandle, lchown, mkdir, open, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { describeDiskFailure } from '@postern/shared/disk-failure'
import { PosternError } from '@postern/shared/errors'

/** Writes a new file that only this user may read; root's are for the user whose folder it is, see `ownerFor`. It is on the disk when this resolves; no part of it is left when
 *  it rejects.
 *  @throws STATE_INVALID with what to do, when the disk fails · EEXIST as it is */
export async function writePrivateFile(file: string, text: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600).catch((cause) => {
    throw explainDisk(file, cause)
  })
  try {
    await writeWhole(handle, text, ownerFor(path.dirname(file)))
  } catch (cause) {
    await rm(file, { force: true })
    throw explainDisk(file, cause)
  }
}

async function writeWhole(handle: FileHandle, text: string, owner: Owner | undefined): Promise<void> {
  try {
    if (owner) await handle.chown(owner.uid, owner.gid)
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

interface Owner {
  uid: number
  gid: number
}

/** Whose a file in this folder is to be, where it is not to be of who makes it. The edge of the packaged unit has a user
 *  that nobody can become, and root's commands work in its folder: what they write must not be closed to the edge. */
export function ownerFor(folder: string): Owner | undefined {
  if (process.geteuid?.() !== 0) return undefined
  const { uid, gid } = statSync(folder)
  return uid === 0 ? undefined : { uid, gid }
}

/** Makes the folder, for this user only, and those above it. Root's are for the user of the folder that they are in.
 *  @throws STATE_INVALID */
export async function makePrivateFolder(folder: string): Promise<void> {
  const whole = path.resolve(folder)
  try {
    const first = await mkdir(whole, { recursive: true, mode: 0o700 })
    if (first === undefined) return
    const owner = ownerFor(path.dirname(first))
    if (!owner) return
    for (let made = whole; made.startsWith(first); made = path.dirname(made)) {
      await lchown(made, owner.uid, owner.gid)
    }
  } catch (cause) {
    throw explainDisk(folder, cause)
  }
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
