import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { after, before, describe, test } from 'node:test'
import { COMPANY_EDGE } from './support/company-network.ts'
import { makeDevBrowser } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { waitForEvent } from './support/event-lines.ts'
import { type FarMachine, startFarMachine } from './support/far-machine.ts'
import { POSTERN } from './support/postern.ts'
import { startEcho, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'

/** A machine that has IPv6 addresses only, and an edge that listens as it does when nobody says otherwise. */

const GENEROUS_MS = 120_000

let far: FarMachine
let edge: EdgeProcess
let echo: TcpService
const home: string = makeTempFolder('home')

before(async () => {
  far = startFarMachine({ family: 6 })
  const identity = { dev: true, unsafe_dev_identity: true }
  edge = await startEdge({ config: { domain: COMPANY_EDGE, listen: ':0', identity } })
  echo = await startEcho(far.address)
  knowEdge(far.address)
})
after(async () => {
  await echo?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  await far?.[Symbol.asyncDispose]()
})

function knowEdge(...addresses: string[]): void {
  far.know({ [COMPANY_EDGE]: addresses })
}

function start(words: readonly string[], stdin = '') {
  return far.run([process.execPath, POSTERN, ...words], { home, stdin })
}

describe('where there is only IPv6', () => {
  test('the edge listens on both families', async () => {
    for (const host of ['127.0.0.1', '::1', far.address]) {
      const socket = net.connect(edge.port, host)
      await once(socket, 'connect')
      socket.destroy()
    }
  })

  test('people sign in, a service is exposed and used; an address that is dead costs a moment', async () => {
    const browser = await makeDevBrowser(edge, home, 'operator@mycorp.com')
    const login = ['login', '--edge', edge.origin, '--ca-file', edge.caFile, '--browser', browser]
    const signedIn = await start(login).ended
    assert.equal(signedIn.code, 0, signedIn.stderr)

    const target = [
      '--host',
      far.address,
      '--port',
      String(echo.port),
      '--allowed-email-domains',
      'mycorp.com',
    ]
    const connector = start(['connect', '--json', '--name', 'db', ...target])
    const host = String((await waitForEvent(connector, 'ready', undefined, GENEROUS_MS)).host)
    const flow = await start(['client', 'tls', '--host', host], 'hello').ended
    assert.equal(flow.stdout, 'hello', flow.stderr)

    // what leads nowhere is tried first; login asks the API, the flow is the tunnel
    knowEdge(far.deadAddress, far.address)
    assert.equal((await start(['whoami']).ended).code, 0)
    const late = await start(['client', 'tls', '--host', host], 'hello').ended
    assert.equal(late.stdout, 'hello', late.stderr)
    knowEdge(far.deadAddress)
    const lost = await start(['client', 'tls', '--host', host], 'hello').ended
    assert.equal(lost.code, 6, lost.stderr)
    assert.match(lost.stderr, /EDGE_UNREACHABLE/)
    await connector.stop()
  })
})
