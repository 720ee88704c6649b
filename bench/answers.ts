import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import type { EdgeProcess } from '../test/support/edge-process.ts'
import { requestEdge } from '../test/support/oauth-peer.ts'

/** Asks the edge again and again whether it is well, from a thread of its own: the thousands that the bench plays in
 *  its main thread would keep the answers waiting, not the edge. */

const ASK_EVERY_MS = 100

/** Milliseconds of each answer, and how often there was none. */
export interface Answers {
  times: number[]
  inVain: number
}

export function watchAnswers({ port, domain, origin, caFile }: EdgeProcess): { stop(): Promise<Answers> } {
  const worker = new Worker(new URL(import.meta.url), { workerData: { port, domain, origin, caFile } })
  return {
    async stop() {
      const told = once(worker, 'message') as Promise<[Answers]>
      worker.postMessage('stop')
      const [answers] = await told
      return answers
    },
  }
}

async function ask(edge: EdgeProcess): Promise<void> {
  const answers: Answers = { times: [], inVain: 0 }
  let isOver = false
  parentPort!.once('message', () => {
    isOver = true
  })
  do {
    const started = performance.now()
    const status = await requestEdge(edge, { path: '/healthz' }).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status === 200) answers.times.push(performance.now() - started)
    else answers.inVain += 1
    await pause(ASK_EVERY_MS)
  } while (!isOver)
  parentPort!.postMessage(answers)
}

if (!isMainThread) await ask(workerData)
