import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Program } from '../demo/program.ts'
import { makeTempFolder } from './support/temp-folder.ts'

const DEMO = fileURLToPath(new URL('../demo/demo.ts', import.meta.url))

function startDemo(folder: string, ...args: string[]): Program {
  return new Program(process.execPath, [DEMO, '--folder', folder, ...args], { stdin: '' })
}

test('demo --check signs people in, uses both services, turns one away and exits 0', async () => {
  const { code, stdout, stderr } = await startDemo(path.join(makeTempFolder('demo'), 'd'), '--check').ended
  assert.equal(code, 0, stdout + stderr)
  assert.equal(stdout.match(/│ Hello!/g)?.length, 2)
  assert.match(stdout, /│ hello over ssh/)
  assert.match(stdout, /\(ACCESS_DENIED\)/)
  assert.match(stdout, /turned away +mallory@elsewhere\.example/)
})

describe('demo --json', () => {
  test('says in one line all that is needed to use it, and ends everything at SIGINT', async () => {
    const folder = path.join(makeTempFolder('demo'), "it's here")
    await using demo = startDemo(folder, '--json')
    const facts = JSON.parse((await demo.matches(/^\{.*\}\n/m))[0])
    assert.deepEqual(Object.keys(facts), [
      ...['postern', 'edge', 'domain', 'port', 'caFile', 'host', 'sshHost', 'posternHome', 'target'],
    ])
    assert.equal(facts.edge, `https://edge.localhost:${facts.port}`)
    assert.equal(statSync(facts.posternHome).mode & 0o777, 0o700)
    assert.match(readFileSync(facts.caFile, 'utf8'), /BEGIN CERTIFICATE/)

    const client = new Program(facts.postern, ['client', 'tls', '--host', facts.host], { stdin: 'hello\n' })
    assert.match((await client.ended).stdout, /^Hello!/m)
    const sshArgs = ['-F', path.join(folder, 'ssh_config'), '-o', 'BatchMode=yes', facts.sshHost, 'echo hi']
    const ssh = await new Program('ssh', sshArgs, { stdin: '' }).ended
    assert.equal(ssh.stdout, 'hi\n', ssh.stderr)

    const second = await startDemo(folder, '--json').ended
    assert.equal(second.code, 1)
    assert.match(second.stderr, /another demo runs/)

    assert.equal((await demo.stop('SIGINT')).code, 0)
    assert.equal(demo.stdout.trim().split('\n').length, 1)
    assert.equal(await answers(facts.port), false, 'the edge still listens')
    assert.equal(await answers(Number(facts.target.split(':')[1])), false, 'the text service still listens')
  })

  test('keeps its hands off a folder that is not a demo', async () => {
    const folder = makeTempFolder('demo')
    mkdirSync(path.join(folder, 'photos'))
    writeFileSync(path.join(folder, 'photos', 'one.jpg'), 'x')
    const { code, stderr } = await startDemo(folder, '--json').ended
    assert.equal(code, 1)
    assert.match(stderr, /not empty/)
    assert.ok(existsSync(path.join(folder, 'photos', 'one.jpg')))
  })
})

async function answers(port: number): Promise<boolean> {
  const socket = net.connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
