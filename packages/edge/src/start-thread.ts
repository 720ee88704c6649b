import path from 'node:path'
import { Worker } from 'node:worker_threads'

/** Replaced by build.ts with the code of every `*-worker.ts`, by name. Absent when the sources run unbuilt. */
declare const POSTERN_THREADS: Readonly<Record<string, string>> | undefined

/** Starts a thread. In a build its code stands in the same file as the code that starts it: an upgrade replaces the files
 *  of an edge that runs, and a thread of another build would understand something else by the same message.
 *  @param source its file, beside the one that starts it */
export function startThread(source: URL, workerData: unknown): Worker {
  if (typeof POSTERN_THREADS === 'undefined') return new Worker(source, { workerData, execArgv: FROM_SOURCE })
  const name = path.basename(source.pathname, '.ts')
  return new Worker(POSTERN_THREADS[name]!, { workerData, execArgv: [], eval: true })
}

const FROM_SOURCE = ['--conditions=postern-source']
