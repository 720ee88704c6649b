import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import type { PrivateSshd } from '../demo/private-sshd.ts'
import { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { makeSshConfig, startSsh, startSshd } from './support/sshd.ts'
import { patternChunks, patternHash } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { AT_ONCE_MS, within } from './support/until.ts'

const FILE_BYTES = 64 * 1024 * 1024

let edge: EdgeProcess
let sshd: PrivateSshd
let service: ConnectedService
let operator: string
let config: string

before(async () => {
  edge = await startEdge()
  sshd = await startSshd()
  operator = await makePerson(edge, 'operator@mycorp.com')
  service = await connectService({ home: operator, port: sshd.port, name: 'ssh' })
  config = makeSshConfig(service.host, sshd, { home: operator })
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

/** Runs one command over ssh to its end, with an empty input. */
const ssh = (command: string, file = config) => startSsh(file, [service.host, command], { stdin: '' }).ended

async function run(command: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await new Program(command, args, { stdin: '' }).ended
  assert.equal(code, 0, stderr)
}

async function writePattern(file: string): Promise<void> {
  const stream = createWriteStream(file)
  for (const chunk of patternChunks(FILE_BYTES)) {
    if (!stream.write(chunk)) await once(stream, 'drain')
  }
  stream.end()
  await once(stream, 'finish')
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file)) hash.update(chunk)
  return hash.digest('hex')
}

test('a command over ssh: its output, its errors and its exit code, and nothing else', async () => {
  const result = await ssh('printf out; printf err >&2; exit 7')
  assert.deepEqual([result.stdout, result.stderr, result.code], ['out', 'err', 7])
})

test('an interactive shell on a terminal', async () => {
  const command = ['ssh', '-F', config, '-o', 'BatchMode=yes', '-tt', service.host]
    .map(quoteForShell)
    .join(' ')
  await using shell = new Program('script', ['-qec', command, '/dev/null'])
  shell.child.stdin.write('PS1="ready> "\n')
  await shell.matches(/ready> $/)
  shell.child.stdin.write('test -t 0 && echo "sum $((40 + 2))"\n')
  await shell.matches(/^sum 42\r?$/m)
  shell.child.stdin.write('exit 3\n')
  const { code, stdout } = await within('the shell ends', shell.ended)
  assert.equal(code, 3, stdout)
})

test('scp of 64 MiB there and back: equal hashes', async () => {
  const folder = makeTempFolder('scp')
  const [source, there, back] = ['source', 'there', 'back'].map((name) => path.join(folder, name))
  await writePattern(source!)
  await run('scp', ['-q', '-F', config, source!, `${service.host}:${there}`])
  assert.equal(await hashOf(there!), patternHash(FILE_BYTES))
  await run('scp', ['-q', '-F', config, `${service.host}:${there}`, back!])
  assert.equal(await hashOf(back!), patternHash(FILE_BYTES))
})

test('rsync of 64 MiB there and back: equal hashes', async () => {
  const folder = makeTempFolder('rsync')
  const [source, there, back] = ['source', 'there', 'back'].map((name) => path.join(folder, name))
  await writePattern(source!)
  const shell = ['-e', `ssh -F ${quoteForShell(config)}`]
  await run('rsync', [...shell, source!, `${service.host}:${there}`])
  assert.equal(await hashOf(there!), patternHash(FILE_BYTES))
  await run('rsync', [...shell, `${service.host}:${there}`, back!])
  assert.equal(await hashOf(back!), patternHash(FILE_BYTES))
})

test('twenty ssh commands at once, of somebody who has no certificate yet', async () => {
  const home = await makePerson(edge, 'dev@mycorp.com')
  const file = makeSshConfig(service.host, sshd, { home })
  const results = await Promise.all(
    Array.from({ length: 20 }, (_, index) => ssh(`cat /dev/null; echo ${index}`, file)),
  )
  for (const [index, result] of results.entries()) {
    assert.deepEqual([result.stdout, result.stderr, result.code], [`${index}\n`, '', 0])
  }
})

test('ssh ends as soon as the remote command does, with its own input still open', async () => {
  await using open = startSsh(config, [service.host, 'echo done'])
  await open.matches(/done/)
  const { code } = await within('ssh ends', open.ended, AT_ONCE_MS)
  assert.equal(code, 0)
  assert.equal(open.child.stdin.writableEnded, false)
})

test('what the service sends is all there is on stdout', async () => {
  const client = await runPostern(['client', 'tls', '--host', service.host], {
    home: operator,
    stdin: 'SSH-2.0-nobody\r\n',
  })
  assert.match(client.stdout, /^SSH-2\.0-OpenSSH/)
})

test('first use without a login: exit 4 with the line to paste, and ssh shows it', async () => {
  const home = makeTempFolder('home')
  const client = await runPostern(['client', 'tls', '--host', service.host], { home })
  assert.deepEqual([client.code, client.stdout], [4, ''])
  assert.match(client.stderr, /EDGE_UNKNOWN/)
  assert.match(client.stderr, /postern login --edge https:\/\/edge\.localhost\n/)
  const result = await ssh('true', makeSshConfig(service.host, sshd, { home }))
  assert.equal(result.code, 255)
  assert.match(result.stderr, /EDGE_UNKNOWN.*\n.*postern login --edge https:\/\/edge\.localhost\n/)
})

test('use after a logout: exit 4 with the line to paste', async () => {
  const home = await makePerson(edge, 'leaver@mycorp.com')
  await runPostern(['logout'], { home })
  const result = await ssh('true', makeSshConfig(service.host, sshd, { home }))
  assert.match(result.stderr, new RegExp(`SIGN_IN_REQUIRED.*\n.*postern login --edge ${edge.origin}\n`))
})
