import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { Program } from '../demo/program.ts'
import { POSTERN, runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** `postern completion`, in real shells on a terminal: keys are typed, Tab is pressed, and a stand-in for postern
 *  tells what the line became. */

interface Shell {
  name: string
  command: string
  /** File that the shell reads when it starts, below its home. */
  file: string
  /** Sets the prompt and loads the completion as the command's own help says. */
  text: string
}

const SHELLS: readonly Shell[] = [
  {
    name: 'bash',
    command: 'bash --rcfile "$HOME/.bashrc" -i',
    file: '.bashrc',
    text: "PS1='[ready] '\nbind 'set enable-bracketed-paste off'\neval \"$(postern completion bash)\"\n",
  },
  {
    name: 'zsh',
    command: 'zsh -i',
    file: '.zshrc',
    text: 'PROMPT=\'[ready] \'\nunsetopt zle_bracketed_paste\nautoload -Uz compinit && compinit -u\neval "$(postern completion zsh)"\n',
  },
  {
    name: 'fish',
    command: 'fish -i',
    file: '.config/fish/config.fish',
    text: "set -g fish_greeting\nset -g fish_autosuggestion_enabled 0\nfunction fish_prompt; echo -n '[ready] '; end\npostern completion fish | source\n",
  },
]

/** Typed keys (Tab is \t) → the arguments with which postern is then run. */
const LINES: readonly (readonly [string, readonly string[]])[] = [
  ['postern logi\t--ed\thttps://edge.example.com', ['login', '--edge', 'https://edge.example.com']],
  ['postern serv\tlis\t--js\t', ['service', 'list', '--json']],
  ['postern cl\ttl\t--hos\tlist --bat\t', ['client', 'tls', '--host', 'list', '--batch']],
  ['postern login --ca-file edge-c\t', ['login', '--ca-file', 'edge-ca.pem']],
  ['postern completion zs\t', ['completion', 'zsh']],
]

function makeHome({ file, text }: Shell): string {
  const home = makeTempFolder('shell')
  mkdirSync(path.join(home, path.dirname(file)), { recursive: true })
  writeFileSync(path.join(home, file), text)
  writeFileSync(path.join(home, 'edge-ca.pem'), '')
  const postern = path.join(home, 'bin/postern')
  mkdirSync(path.dirname(postern))
  const real = [process.execPath, POSTERN].map(quoteForShell).join(' ')
  writeFileSync(
    postern,
    `#!/bin/sh\nif [ -z "$TYPED" ]; then exec ${real} "$@"; fi\nprintf 'ran'; printf ' [%s]' "$@"; echo\n`,
  )
  chmodSync(postern, 0o755)
  return home
}

describe('completion', () => {
  for (const shell of SHELLS) {
    test(`${shell.name} completes commands, options and files`, async () => {
      const home = makeHome(shell)
      const env = { PATH: `${home}/bin:${process.env.PATH}`, HOME: home, TERM: 'vt100', LANG: 'C.UTF-8' }
      await using terminal = new Program('script', ['-qec', shell.command, '/dev/null'], { env, cwd: home })
      await terminal.matches(/\[ready\] /)
      terminal.child.stdin.write('export TYPED=1\r')
      let prompts = 2
      for (const [keys, words] of LINES) {
        await terminal.output(({ stdout }) => (stdout.split('[ready] ').length > prompts ? true : undefined))
        const before = terminal.stdout.length
        terminal.child.stdin.write(`${keys}\r`)
        const [ran] = await terminal.output(
          ({ stdout }) => /ran( \[[^\]]*\])+/.exec(stdout.slice(before)) ?? undefined,
        )
        assert.equal(ran, `ran ${words.map((word) => `[${word}]`).join(' ')}`)
        prompts = terminal.stdout.slice(0, before).split('[ready] ').length
      }
    })
  }

  test('another shell is refused by name', async () => {
    const { code, stderr } = await runPostern(['completion', 'tcsh'], { home: makeTempFolder('home') })
    assert.equal(code, 2)
    assert.match(stderr, /bash, zsh, fish/)
  })
})
