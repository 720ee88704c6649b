import assert from 'node:assert/strict'
import { readFileSync, renameSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { connectService } from './support/connect-service.ts'
import { logIn, makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { startEcho } from './support/tcp-services.ts'
import { attempt, clientCertificateOf } from './support/tls-peer.ts'

/** "What to do when" of docs/operations.md, done as it says. */

const PAGE = readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8')

const reach = (home: string, host: string) =>
  runPostern(['client', 'tls', '--host', host], { home, stdin: 'hello' })

test('a laptop is stolen: the commands of the page end all sessions of one person, and of nobody else', async () => {
  const commands = [...PAGE.matchAll(/^postern ((?:lock|revoke|unlock) .*ann@mycorp\.com.*)$/gm)].map(
    ([, words]) => [...words!.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!),
  )
  assert.deepEqual(
    commands.map(([name]) => name),
    ['lock', 'revoke'],
  )
  await using edge = await startEdge()
  await using echo = await startEcho()
  const operator = await makePerson(edge, 'operator@mycorp.com')
  const ann = await makePerson(edge, 'ann@mycorp.com')
  const service = await connectService({ home: operator, port: echo.port })
  assert.equal((await reach(ann, service.host)).code, 0)
  await using flow = spawnPostern(['client', 'tls', '--host', service.host], { home: ann })
  flow.child.stdin.write('ping')
  await flow.matches(/ping/)

  const [lock, revoke] = commands as [string[], string[]]
  const locked = await runPostern(lock, { home: operator })
  assert.equal(locked.code, 0, locked.stderr)
  const ended = await flow.ended
  assert.equal(ended.code, 5)
  assert.match(ended.stderr, /IDENTITY_LOCKED/)
  const refused = await reach(ann, service.host)
  assert.equal(refused.code, 5)
  assert.match(refused.stderr, /IDENTITY_LOCKED/)
  const revoked = await runPostern(revoke, { home: operator })
  assert.equal(revoked.code, 0, revoked.stderr)
  assert.match(revoked.stdout, /sessions +1 /)
  assert.equal((await runPostern(['whoami', '--batch'], { home: ann })).code, 4)
  assert.equal((await reach(operator, service.host)).code, 0)
  assert.equal((await runPostern(['unlock', 'ann@mycorp.com'], { home: operator })).code, 0)
  await service.stop()

  await logIn(edge, ann, 'ann@mycorp.com')
  assert.equal((await runPostern(['whoami', '--batch'], { home: ann })).code, 0)
})

test("the edge's keys leaked: new ones come by themselves, the old ones are worthless, people sign in again", async () => {
  await using first = await startEdge({ keepsPort: true })
  const { port, dataDir } = first
  await using echo = await startEcho()
  const home = await makePerson(first, 'operator@mycorp.com')
  await using connector = await connectService({ home, port: echo.port })
  const { host, label } = connector
  assert.equal((await reach(home, host)).stdout, 'hello')
  const old = clientCertificateOf(home, label)
  await first.stop()
  for (const name of ['ca', 'login-keys.json'])
    renameSync(path.join(dataDir, name), path.join(dataDir, `leaked-${name}`))

  await using second = await startEdge({ port, dataDir })
  const distrusted = await runPostern(['whoami', '--batch'], { home })
  assert.equal(distrusted.code, 6)
  assert.match(distrusted.stderr, /EDGE_UNTRUSTED/)
  const { bytes } = await attempt(second, { serverName: host, alpn: 'postern/1', identity: old })
  assert.equal(bytes, '')
  await connector.event('disconnected', ({ code }) => code === 'EDGE_UNTRUSTED')
  await connector.stop()

  await logIn(second, home, 'operator@mycorp.com')
  assert.equal((await runPostern(['whoami', '--batch'], { home })).code, 0)
  await using again = await connectService({ home, port: echo.port })
  assert.equal(again.host, host)
  assert.equal((await reach(home, host)).stdout, 'hello')
})
