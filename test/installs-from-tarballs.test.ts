import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program, type ProgramResult } from '../demo/program.ts'
import { makeDevBrowser } from './support/dev-browser.ts'
import { posternEnv } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** What is handed to people: the three tarballs of `npm pack`, installed into an empty folder. */

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const NPM_TIMEOUT_MS = 240_000

let tarballs: string
let folder: string

before(async () => {
  tarballs = packTarballs()
  folder = makeTempFolder('installed')
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }')
  const files = readdirSync(tarballs).map((name) => path.join(tarballs, name))
  runNpm(folder, 'install', '--no-audit', '--no-fund', ...files)
})

/** Packs a copy of the sources: `prepack` builds from nothing, and other tests are using the build here. */
function packTarballs(): string {
  const copy = makeTempFolder('source')
  const left = ['node_modules', 'dist', 'build', '.git', '.demo']
  cpSync(ROOT, copy, { recursive: true, filter: (file) => !left.includes(path.basename(file)) })
  // the dependencies are lent, our own packages are those of the copy
  mkdirSync(path.join(copy, 'node_modules/@postern'), { recursive: true })
  for (const name of readdirSync(path.join(ROOT, 'node_modules')).filter((name) => name !== '@postern')) {
    symlinkSync(path.join(ROOT, 'node_modules', name), path.join(copy, 'node_modules', name))
  }
  for (const name of ['shared', 'edge', 'cli']) {
    symlinkSync(path.join(copy, 'packages', name), path.join(copy, 'node_modules/@postern', name))
  }
  runNpm(copy, 'run', '--silent', 'tarballs')
  return path.join(copy, 'build/tarballs')
}

function runNpm(cwd: string, ...args: string[]): string {
  return execFileSync('npm', args, {
    cwd,
    encoding: 'utf8',
    timeout: NPM_TIMEOUT_MS,
    stdio: ['ignore', 'pipe', 'pipe'],
    // npm's own settings for the run around this one are not for this one
    env: Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^npm_(config_(local_)?prefix|package)/.test(name)),
    ),
  })
}

/** The `PATH` of somebody who has installed Node 24 and these packages. */
function installedEnv(home: string): NodeJS.ProcessEnv {
  const searchPath = [path.join(folder, 'node_modules/.bin'), path.dirname(process.execPath)]
  return { ...posternEnv({ home }), PATH: [...searchPath, process.env.PATH].join(':') }
}

function start(command: string, args: readonly string[], home: string, stdin?: string): Program {
  return new Program(path.join(folder, 'node_modules/.bin', command), args, {
    env: installedEnv(home),
    ...(stdin === undefined ? {} : { stdin }),
  })
}

const runPostern = (home: string, args: readonly string[], stdin = ''): Promise<ProgramResult> =>
  start('postern', args, home, stdin).ended

describe('the tarballs', () => {
  test('hold what runs, its licenses, and nothing of how it is made', () => {
    for (const name of ['cli', 'edge', 'shared']) {
      const installed = path.join(folder, 'node_modules/@postern', name)
      const files = readdirSync(installed, { recursive: true, encoding: 'utf8' })
      const unwanted = files.filter(
        (file) => /\.test\.|tsbuildinfo|\.ts$/.test(file) && !/\.d\.ts$/.test(file),
      )
      assert.deepEqual(unwanted, [], name)
      assert.ok(!files.some((file) => file.startsWith('src')), name)
      assert.match(readFileSync(path.join(installed, 'LICENSE'), 'utf8'), /Apache License/)
      if (name === 'shared') continue
      const licenses = readFileSync(path.join(installed, 'dist/third-party-licenses.txt'), 'utf8')
      assert.match(licenses, /^valibot \d.*MIT/m)
      assert.ok(files.includes(`bin/postern${name === 'edge' ? '-edge' : ''}.js`))
      const chunks = files.filter((file) => file.startsWith('dist/chunks/'))
      for (const chunk of chunks) assert.ok(isUsed(installed, chunk, files), `${chunk} is of an older build`)
    }
  })

  test('bring no other package, but valibot for those who use @postern/shared', () => {
    const lock = JSON.parse(readFileSync(path.join(folder, 'node_modules/.package-lock.json'), 'utf8'))
    const names = Object.keys(lock.packages).map((file) => file.replace('node_modules/', ''))
    assert.deepEqual(names.sort(), ['@postern/cli', '@postern/edge', '@postern/shared', 'valibot'])
  })

  test('@postern/shared can be imported by its sub-paths', () => {
    const script = `import { ERRORS } from '@postern/shared/errors'
      import { parseServiceLabel } from '@postern/shared/service-label'
      import '@postern/shared/api/services'
      console.log(ERRORS.ACCESS_DENIED.exit, parseServiceLabel('crimson-thunder-8434'))`
    const args = ['--input-type=module', '--eval', script]
    const said = execFileSync(process.execPath, args, { cwd: folder, encoding: 'utf8' })
    assert.equal(said, '5 crimson-thunder-8434\n')
  })
})

/** Is this chunk named by another file of the build? */
function isUsed(installed: string, chunk: string, files: readonly string[]): boolean {
  return files
    .filter((file) => /^dist\/.*\.js$/.test(file) && file !== chunk)
    .some((file) => readFileSync(path.join(installed, file), 'utf8').includes(path.basename(chunk)))
}

describe('the installed programs', () => {
  test('say their version', async () => {
    const { version } = JSON.parse(readFileSync(path.join(ROOT, 'packages/cli/package.json'), 'utf8'))
    for (const command of ['postern', 'postern-edge']) {
      const { code, stdout } = await start(command, ['--version'], folder, '').ended
      assert.deepEqual([code, stdout], [0, `${version}\n`])
    }
  })

  test('do the whole round: edge, login, connect, client tls', async () => {
    const home = makeTempFolder('home')
    const dataDir = makeTempFolder('edge')
    await using echo = await startEcho()
    await using edge = start('postern-edge', ['dev', '--json', '--data-dir', dataDir], home, '')
    const { edge: origin, caFile } = JSON.parse((await edge.matches(/^\{"edge".*\}$/m))[0])

    const browser = await makeDevBrowser({ origin, caFile }, home, 'ann@mycorp.com')
    const login = ['login', '--edge', origin, '--ca-file', caFile, '--browser', browser]
    const signedIn = await runPostern(home, login)
    assert.equal(signedIn.code, 0, signedIn.stderr)

    const allow = ['--allowed-email-domains', 'mycorp.com']
    const connect = ['connect', '--json', '--name', 'echo', '--port', String(echo.port), ...allow]
    await using connector = start('postern', connect, home)
    const { host } = JSON.parse((await connector.matches(/^\{.*"ready".*\}$/m))[0])
    const reached = await runPostern(home, ['client', 'tls', '--host', host], 'hello from a tarball')
    assert.deepEqual([reached.code, reached.stdout], [0, 'hello from a tarball'], reached.stderr)
    assert.equal((await connector.stop('SIGTERM')).code, 0)
    assert.equal((await edge.stop('SIGTERM')).code, 0)
  })
})

describe('on a Node that is too old', () => {
  test('both programs say so in one sentence, exit 1', () => {
    const nodes = [installNode('14.21.3'), '/usr/local/bin/node', '/usr/bin/node'].filter(isTooOld)
    assert.ok(nodes.length > 0)
    for (const node of nodes) {
      for (const [name, command] of [
        ['cli', 'postern'],
        ['edge', 'postern-edge'],
      ]) {
        const script = path.join(folder, 'node_modules/@postern', name!, 'bin', `${command}.js`)
        assert.throws(
          () => execFileSync(node, [script, '--version'], { stdio: 'pipe', encoding: 'utf8' }),
          (error: { status: number; stdout: string; stderr: string }) => {
            assert.deepEqual([error.status, error.stdout], [1, ''])
            const { version } = readVersion(node)
            assert.equal(error.stderr, `${command} needs Node 24.21 or newer, this is ${version}\n`)
            return true
          },
        )
      }
    }
  })
})

/** A real old Node: the package on npm that is nothing but the binary. */
function installNode(version: string): string {
  const into = makeTempFolder('old-node')
  const name = `node-linux-${process.arch}`
  runNpm(into, 'install', '--no-audit', '--no-fund', '--prefix', into, `${name}@${version}`)
  return path.join(into, 'node_modules', name, 'bin/node')
}

function isTooOld(node: string): boolean {
  return existsSync(node) && readVersion(node).isTooOld
}

function readVersion(node: string): { version: string; isTooOld: boolean } {
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim().slice(1)
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return { version, isTooOld: major < 24 || (major === 24 && minor < 21) }
}
