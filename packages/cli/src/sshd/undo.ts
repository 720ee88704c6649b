import { existsSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { type Lock, takeLock } from '../credentials/lock.ts'
import { undoChange } from './change-file.ts'
import type { SshdLayout } from './drop-in.ts'
import { reloadSshd } from './reload.ts'
import { stopSchedule } from './schedule.ts'
import { readState, requireState, type SetupState, writeState } from './state.ts'
import { tellTimerIsUp } from './undo-timer.ts'

/** Takes back what `setup` has done: sshd's own files first, then a reload, and only then the files that sshd was
 *  told to read, because without its list of revoked keys it would refuse every key there is. */

const LOCK_TIMEOUT_MS = 120_000
const LOOK_AGAIN_MS = 500
const RETRY_MS = 5_000
const MAX_TRIES = 100

/** Held by whoever sets up, confirms, refreshes or takes back. */
export function lockSetup(layout: SshdLayout): Promise<Lock> {
  return takeLock(path.join(layout.folder, 'lock'), { timeoutMs: LOCK_TIMEOUT_MS })
}

/** @param reloadCommand in place of the one of the setup, which may be what does not work
 *  @returns what was taken back; undefined when there is nothing */
export async function undoSetup(layout: SshdLayout, reloadCommand?: string): Promise<SetupState | undefined> {
  if (!existsSync(layout.folder)) return undefined
  using _lock = await lockSetup(layout)
  const state = readState(layout)
  if (state) await undoLocked(layout, { ...state, ...(reloadCommand === undefined ? {} : { reloadCommand }) })
  return state
}

/** With the lock held. A failed reload leaves our folder where it is: sshd still reads it.
 *  @param options.reload false when sshd has not been told of the change */
export async function undoLocked(
  layout: SshdLayout,
  state: SetupState,
  { reload = true }: { reload?: boolean } = {},
): Promise<void> {
  await stopSchedule(state.scheduler)
  for (const change of state.files) undoChange(change, state.dropInFile)
  if (reload) await reloadSshd(state)
  rmSync(layout.folder, { recursive: true, force: true })
}

export async function confirmSetup(layout: SshdLayout): Promise<SetupState> {
  requireState(layout)
  using _lock = await lockSetup(layout)
  const state = requireState(layout)
  writeState(layout, { ...state, confirmed: true })
  return state
}

/** What the undo timer does: waits in a process of its own, and takes the change back unless it was confirmed or
 *  taken back meanwhile. */
export async function undoUnlessConfirmed(layout: SshdLayout, afterMs: number): Promise<void> {
  const deadline = performance.now() + afterMs // the clock may be set meanwhile
  tellTimerIsUp(layout)
  while (performance.now() < deadline) {
    await wait(LOOK_AGAIN_MS)
    const state = readState(layout)
    if (!state || state.confirmed) return
  }
  for (let tries = 1; ; tries++) {
    try {
      await undoIfOverdue(layout, Number.POSITIVE_INFINITY)
      return
    } catch (error) {
      if (tries === MAX_TRIES) throw error // nobody reads it; the next refresh tries again
      await wait(RETRY_MS)
    }
  }
}

/** Also for whoever comes by later: the machine may have been restarted, and the timer with it.
 *  @returns true when the change was taken back */
export async function undoIfOverdue(layout: SshdLayout, now: number = Date.now()): Promise<boolean> {
  if (!existsSync(layout.folder)) return false
  using _lock = await lockSetup(layout)
  const state = readState(layout)
  if (!state || state.confirmed || now < state.confirmBy) return false
  await undoLocked(layout, state)
  return true
}
