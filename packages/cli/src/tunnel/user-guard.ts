import type { Socket } from 'node:net'
import type { ErrorCode } from '@postern/shared/errors'
import { PosternError } from '@postern/shared/errors'
import { resetSocket } from '@postern/shared/stream/reset-socket'
import type { Report } from './listener-events.ts'
import { endpointsOf, findLocalUser, isLoopback } from './local-user.ts'

/** Keeps programs of other users of this machine away from a loopback port, where the system can tell them. */

/** Refused programs are told of once in this time: who may not use the port must not fill the log either. */
const TELL_EVERY_MS = 10_000

/** Resets a connection that is not to be served.
 *  @returns whether it did */
export type UserGuard = (socket: Socket) => boolean

export function createUserGuard(report: Report): UserGuard {
  const ownUser = process.geteuid?.()
  if (process.platform !== 'linux' || ownUser === undefined) return () => false
  const tellers = new Map<ErrorCode, (reason: PosternError) => void>()
  return (socket) => {
    const reason = explainForeigner(socket, ownUser)
    if (reason === undefined) return false
    socket.on('error', () => undefined)
    resetSocket(socket)
    if (!tellers.has(reason.code)) tellers.set(reason.code, createTeller(report))
    tellers.get(reason.code)!(reason)
    return true
  }
}

function createTeller(report: Report): (reason: PosternError) => void {
  let connections = 0
  let toldAt = Number.NEGATIVE_INFINITY
  return ({ code, message, hint }) => {
    connections += 1
    if (performance.now() - toldAt < TELL_EVERY_MS) return
    toldAt = performance.now()
    report({ event: 'user.refused', code, message, hint, connections })
    connections = 0
  }
}

/** @returns undefined for a program of this user, and for whoever comes over a network */
function explainForeigner(socket: Socket, ownUser: number): PosternError | undefined {
  const [peer, here] = endpointsOf(socket)
  if (!isLoopback(here.address)) return undefined
  const user = findLocalUser(peer, here)
  if (user === ownUser) return undefined
  if (user !== undefined)
    return new PosternError('LOCAL_USER_REFUSED', `a program of user ${user} was refused`)
  const what = 'a program that was gone before its user could be found was refused: what it sent is lost'
  return new PosternError('LOCAL_USER_UNKNOWN', what)
}
