import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { stateFolder } from '../credentials/home.ts'
import { findEdgeOfHost } from '../credentials/known-edge.ts'
import { hostOfSsh, hostsOfScp } from '../ssh/arguments.ts'
import type { SshDestination } from '../ssh/key-files.ts'
import { runProgramInPlace } from '../ssh/run-program.ts'
import { formatArguments, readSurroundings } from '../ssh/settings.ts'
import { addKeyOptions, ensureKey, type KeysignOptions } from './client/ssh-keysign.ts'
import { addExamples } from './examples.ts'

/** `postern ssh` and `postern scp`: OpenSSH's programs with what `ssh-config` would write as options, so that nothing
 *  has to be installed. */

type SshOptions = Omit<KeysignOptions, 'host'>

/** @param leaveSignals called when the program is about to start; until then Ctrl-C is ours */
async function runWith(
  { program, words, hosts }: { program: 'ssh' | 'scp'; words: readonly string[]; hosts: readonly string[] },
  options: SshOptions,
  leaveSignals: () => void,
): Promise<void> {
  const destinations = hosts.map((host) => findDestination(host, options))
  const { edge } = destinations[0]!
  if (destinations.some((other) => other.edge.origin !== edge.origin)) {
    throw new PosternError('USAGE_INVALID', 'the files are on services of several edges', {
      hint: 'copy them one after the other, or use scp after: postern ssh-config --install',
    })
  }
  for (const destination of destinations) await ensureKey(destination, options)
  leaveSignals()
  // ours first: ssh takes the first value that it gets
  await runProgramInPlace(program, [...formatArguments(edge, readSurroundings()), ...words])
}

function findDestination(host: string, { port, edge }: SshOptions): SshDestination {
  return findEdgeOfHost(stateFolder(), host, { port, origin: edge })
}

export function addSsh(program: Command, leaveSignals: () => void): void {
  const ssh = program
    .command('ssh')
    .description('ssh to a service, with a certificate in place of keys and without any configuration')
    .usage('[options] [ssh options] [user@]HOST [ssh arguments...]')
    .argument('<words...>', 'what ssh itself takes; options of postern come before')
    .allowUnknownOption()
    .passThroughOptions()
  addKeyOptions(ssh).action((words: string[], options: SshOptions) =>
    runWith({ program: 'ssh', words, hosts: [hostOfSsh(words)] }, options, leaveSignals),
  )
  addExamples(ssh, [
    ['a shell', 'postern ssh ubuntu@crimson-thunder-8434.edge.example.com'],
    ['a port', 'postern ssh -N -L 5432:localhost:5432 ubuntu@crimson-thunder-8434.edge.example.com'],
  ])
  const scp = program
    .command('scp')
    .description('copy files from and to a service, as postern ssh reaches it')
    .usage('[options] [scp options] SOURCE... TARGET')
    .argument('<words...>', 'what scp itself takes; options of postern come before')
    .allowUnknownOption()
    .passThroughOptions()
  addKeyOptions(scp).action((words: string[], options: SshOptions) =>
    runWith({ program: 'scp', words, hosts: hostsOfScp(words) }, options, leaveSignals),
  )
  addExamples(scp, [['a folder', 'postern scp -r notes ubuntu@crimson-thunder-8434.edge.example.com:notes']])
}
