import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { NETWORK_ARGUMENTS, type NetworkOptions, networkOf } from '../../network/options.ts'
import type { AskOptions } from '../ask.ts'
import { parseEdgeOrigin, parsePort } from '../options.ts'

/** What the commands that ssh starts have in common. */
export interface UsualOptions extends AskOptions, NetworkOptions {
  host: string
  /** The edge's, never ssh's `%p`. */
  port?: number | undefined
  /** Origin of the edge. */
  edge?: string | undefined
}

const USUAL_ARGUMENTS = {
  host: { type: 'string' },
  port: { type: 'string' },
  edge: { type: 'string' },
  browser: { type: 'string' },
  'no-browser': { type: 'boolean' },
  batch: { type: 'boolean' },
  interactive: { type: 'boolean' },
  ...NETWORK_ARGUMENTS,
} as const

/** Reads the usual options without commander, which costs as much time to load as the whole rest.
 *  @param own what only this command has, and @param finish makes of its values
 *  @returns undefined for anything unusual: commander then says what is wrong, or prints the help */
export function readUsualArguments<Options>(
  args: readonly string[],
  own: ParseArgsOptionsConfig,
  finish: (usual: UsualOptions, values: Record<string, unknown>) => Options,
): Options | undefined {
  try {
    const { values: ownValues } = parseArgs({ args: [...args], options: { ...USUAL_ARGUMENTS, ...own } })
    const values: ReturnType<typeof parseArgs<{ options: typeof USUAL_ARGUMENTS }>>['values'] = ownValues
    if (!values.host) return undefined
    const usual = {
      host: values.host,
      port: values.port === undefined ? undefined : parsePort(values.port),
      edge: values.edge === undefined ? undefined : parseEdgeOrigin(values.edge),
      browser: values['no-browser'] ? false : values.browser,
      batch: values.batch,
      interactive: values.interactive,
      ...networkOf(values),
    }
    return finish(usual, ownValues)
  } catch {
    return undefined
  }
}
