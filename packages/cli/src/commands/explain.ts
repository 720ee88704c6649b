import { FlowExplanationResponse } from '@postern/shared/api/flow-explanation'
import { ERRORS, type ErrorCode, isErrorCode, PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../credentials/fresh.ts'
import { stateFolder } from '../credentials/home.ts'
import { pickEdge } from '../credentials/known-edge.ts'
import { print, printable, printJson } from '../io.ts'
import { type AskOptions, addAskOptions, loginPolicy } from './ask.ts'
import { addExamples } from './examples.ts'
import { parseEdgeOrigin } from './options.ts'

interface ExplainOptions extends AskOptions {
  edge?: string
  json?: boolean
}

const FLOW_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

async function runExplain(subject: string, options: ExplainOptions): Promise<void> {
  const code = subject.toUpperCase()
  if (isErrorCode(code)) return explainCode(code, options)
  if (FLOW_ID.test(subject)) return explainFlow(subject, options)
  throw new PosternError(
    'USAGE_INVALID',
    `${JSON.stringify(subject)} is neither an error code nor a flow id`,
    {
      hint: 'a code stands in parentheses behind a message, ACCESS_DENIED for example; a flow id after "more:"',
    },
  )
}

/** Asks nobody: works without an edge and without a session. */
async function explainCode(code: ErrorCode, options: ExplainOptions): Promise<void> {
  const { meaning, next } = await meaningOf(code)
  const { exit, http } = ERRORS[code]
  if (options.json) return printJson({ code, exitCode: exit, http, meaning, next })
  await print(`${code} (exit ${exit})\n  ${meaning}\n  what to do: ${next}\n`)
}

async function explainFlow(flowId: string, options: ExplainOptions): Promise<void> {
  const edge = pickEdge(stateFolder(), options.edge)
  const path = `/v1/flows/${flowId}/explanation`
  const flow = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    api.call(FlowExplanationResponse, { method: 'GET', path, session }),
  )
  if (options.json) return printJson(flow)
  const from = flow.clientAddress === undefined ? '' : ` from ${flow.clientAddress}`
  const lines = [`flow ${flow.flowId}: ${flow.email} to ${flow.host}${from}`]
  for (const { at, what, code, rule } of flow.events) {
    const because = rule === undefined ? '' : ` by: ${rule}`
    lines.push(`  ${new Date(at).toISOString()}  ${what}${code === undefined ? '' : ` (${code})`}${because}`)
  }
  const last = flow.events.findLast(({ code }) => code !== undefined)?.code
  if (isErrorCode(last)) {
    const { meaning, next } = await meaningOf(last)
    lines.push(`  ${meaning}`, `  what to do: ${next}`)
  }
  await print(`${lines.map(printable).join('\n')}\n`)
}

/** The largest text of the command line, which no other command reads. */
async function meaningOf(code: ErrorCode): Promise<{ meaning: string; next: string }> {
  const { MEANINGS } = await import('../explain/meanings.ts')
  return MEANINGS[code]
}

export function addExplain(parent: Command): void {
  const command = parent
    .command('explain')
    .description('say what an error code means, or what became of a flow, and what to do next')
    .argument('<code-or-flow-id>', 'a code like ACCESS_DENIED, or the id of a flow')
    .option('--edge <url>', 'the edge, when you know several', parseEdgeOrigin)
    .option('--json', 'print JSON')
  addAskOptions(command).action(runExplain)
  addExamples(command, [
    ['what a code means', 'postern explain SERVICE_OFFLINE'],
    ['why a connection was refused', 'postern explain 0b6f1f0e-5d5e-4a0c-9d3a-0d6d1c1f2a3b'],
  ])
}
