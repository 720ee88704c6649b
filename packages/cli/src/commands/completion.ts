import { Argument, type Command } from 'commander'
import { writeBash } from '../completion/bash.ts'
import { readCommandLine } from '../completion/command-line.ts'
import { writeFish } from '../completion/fish.ts'
import { writeZsh } from '../completion/zsh.ts'
import { print } from '../io.ts'
import { addExamples } from './examples.ts'

/** `postern completion`: a script that makes the shell complete commands and options. It asks nothing of postern
 *  later, so completing costs no start of a program; write it again after an update. */

const WRITERS = { bash: writeBash, zsh: writeZsh, fish: writeFish } as const

export function addCompletion(program: Command): void {
  const command = program
    .command('completion')
    .description('print a script that makes your shell complete commands and options')
    .addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(Object.keys(WRITERS)))
    .action((shell: keyof typeof WRITERS) => print(WRITERS[shell](readCommandLine(program))))
  addExamples(command, [
    ['bash, in ~/.bashrc', 'eval "$(postern completion bash)"'],
    ['zsh, in ~/.zshrc after compinit', 'eval "$(postern completion zsh)"'],
    ['fish', 'postern completion fish > ~/.config/fish/completions/postern.fish'],
  ])
}
