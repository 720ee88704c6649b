import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { describe, it } from 'node:test'
import type { PosternError } from '@postern/shared/errors'
import type { FramedEnd } from '@postern/shared/stream/framed-end'
import type { WebSocket } from 'ws'
import { exampleService, FakeEdge, refusal } from './fake-edge.ts'
import { createHome, type Running, startPostern } from './run-postern.ts'
import { signedIn } from './signed-in.ts'

const SERVICE = exampleService('edge.localhost')
const ALLOW = ['--allowed-email-domains', 'mycorp.com']

function connect(home: string, port: number, more: string[] = []): Running {
  return startPostern(home, [
    'connect',
    // the connections that its service sees are those of its flows
    ...['--health-check', 'off'],
    '--name',
    'text',
    '--port',
    String(port),
    '--json',
    '--batch',
    ...more,
  ])
}

/** Answers `attach` and hands on data connections whose hello has come. */
class Attachments {
  readonly controls: WebSocket[] = []
  readonly waiting: FramedEnd[] = []
  readonly instanceIds: string[] = []
  allow: typeof SERVICE.allow = SERVICE.allow
  #onWaiting: (() => void) | undefined

  constructor(edge: FakeEdge) {
    edge.onControl = (ws) => {
      this.controls.push(ws)
      ws.once('message', (data) => {
        const { type, instanceId } = JSON.parse(String(data))
        assert.equal(type, 'attach')
        this.instanceIds.push(instanceId)
        const { id, label, name, host } = SERVICE
        const service = { id, label, name, host, allow: this.allow }
        const attachmentId = `a${this.controls.length}`
        ws.send(JSON.stringify({ type: 'attached', version: 1, attachmentId, service, warm: 1 }))
      })
    }
    edge.onData = (end) => {
      end.receive({
        chunk() {},
        end() {},
        drain() {},
        cut: () => this.waiting.splice(this.waiting.indexOf(end) >>> 0, 1),
        control: (type, body) => {
          assert.equal(type, 'hello')
          assert.equal((body as { attachmentId: string }).attachmentId, `a${this.controls.length}`)
          this.waiting.push(end)
          this.#onWaiting?.()
        },
      })
      end.resume()
    }
  }

  async take(): Promise<FramedEnd> {
    if (this.waiting.length === 0) await new Promise<void>((resolve) => (this.#onWaiting = resolve))
    return this.waiting.shift()!
  }
}

interface Heard {
  bytes: Promise<string>
  cut: Promise<PosternError>
  ok: Promise<void>
}

/** Opens a flow on a waiting connection, as the edge does: what the client sent follows at once. */
function openFlow(end: FramedEnd, sent: string, ended = true): Heard {
  const bytes = Promise.withResolvers<string>()
  const cut = Promise.withResolvers<PosternError>()
  const ok = Promise.withResolvers<void>()
  let text = ''
  end.receive({
    chunk: (chunk) => {
      text += chunk
    },
    end: () => bytes.resolve(text),
    drain: () => undefined,
    cut: (error) => cut.resolve(error),
    control: (type) => type === 'ok' && ok.resolve(),
  })
  end.send('open', {
    flowId: 'f1',
    serviceId: SERVICE.id,
    identity: { id: 'i1', email: 'person@mycorp.com' },
    clientAddress: '203.0.113.7:50514',
  })
  if (sent) end.write(Buffer.from(sent))
  if (ended) end.end(() => undefined)
  return { bytes: bytes.promise, cut: cut.promise, ok: ok.promise }
}

async function startService(
  onConnection: (socket: Socket) => void,
): Promise<{ port: number } & AsyncDisposable> {
  const sockets = new Set<Socket>()
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    onConnection(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Answers after end of file, as many services do. */
const echoAfterEnd = (socket: Socket) => {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.on('end', () => socket.end(Buffer.concat(chunks)))
}

async function stop(running: Running): Promise<void> {
  running.child.kill('SIGTERM')
  const { code, stderr } = await running.finished
  assert.equal(code, 0, stderr)
}

describe('connect', () => {
  it('is ready, carries flows and tells about them', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using service = await startService(echoAfterEnd)
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port, ALLOW)
    await running.sees('"event":"ready"')
    for (let round = 0; round < 3; round++) {
      const flow = openFlow(await attachments.take(), 'hello')
      assert.equal(await flow.bytes, 'hello')
    }
    await running.sees('"event":"flow.closed"')
    await stop(running)
    const events = (await running.finished).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.equal(events[0].event, 'ready')
    assert.equal(events[0].host, SERVICE.host)
    const closed = events.find((event) => event.event === 'flow.closed')
    assert.deepEqual([closed.email, closed.bytesUp, closed.bytesDown], ['person@mycorp.com', 5, 5])
    assert.deepEqual(edge.callsTo('/v1/services')[0]?.body.allow, SERVICE.allow)
  })

  it('opens more data connections when the edge wants them', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using service = await startService(echoAfterEnd)
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port)
    await running.sees('"event":"ready"')
    attachments.controls[0]!.send(JSON.stringify({ type: 'want', count: 3 }))
    for (let taken = 0; taken < 4; taken++) await attachments.take()
    await stop(running)
  })

  it('is ready without its target, and answers flows with a code and no address', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const service = await startService(echoAfterEnd)
    await service[Symbol.asyncDispose]()
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port)
    await running.sees('"event":"ready"')
    const error = await openFlow(await attachments.take(), 'hello').cut
    assert.equal(error.code, 'SERVICE_REFUSED')
    assert.doesNotMatch(error.message + error.hint, /127\.0\.0\.1|localhost|\d{4}/)
    await stop(running)
  })

  it('resets the service when the client is cut, and never ends it cleanly', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const ends = Promise.withResolvers<string>()
    await using service = await startService((socket) => {
      socket.on('end', () => ends.resolve('clean end'))
      socket
        .removeAllListeners('error')
        .on('error', (error: NodeJS.ErrnoException) => ends.resolve(error.code!))
      socket.resume()
    })
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port)
    const end = await attachments.take()
    const flow = openFlow(end, 'half of', false)
    await flow.ok
    edge.onData = () => undefined
    end.abort(Object.assign(new Error('cut'), { code: 'FLOW_CUT', hint: '' }) as PosternError)
    assert.equal(await ends.promise, 'ECONNRESET')
    await running.sees('"error":"FLOW_CUT"')
    await stop(running)
  })

  it('comes back by itself after the edge was away', async () => {
    using home = createHome()
    const edge = await new FakeEdge().start()
    await using service = await startService(echoAfterEnd)
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port)
    await running.sees('"event":"ready"')
    await edge[Symbol.asyncDispose]()
    await running.sees('"event":"disconnected"')
    await using _again = await edge.start()
    await running.sees('"event":"reconnected"')
    assert.equal(await openFlow(await attachments.take(), 'again').bytes, 'again')
    await stop(running)
  })

  it('ends with the code when the edge does not want it any more', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.onControl = (ws) => {
      ws.send(
        JSON.stringify({ type: 'refused', code: 'CONNECTOR_REFUSED', message: 'the service was deleted' }),
      )
      ws.close(4403)
    }
    using running = connect(home.folder, 9)
    const { code, stderr } = await running.finished
    assert.equal(code, 5)
    assert.match(stderr, /the service was deleted \(CONNECTOR_REFUSED\)/)
  })

  it('renews its certificate without cutting flows', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using service = await startService((socket) => socket.pipe(socket))
    signedIn(home.folder, edge)
    edge.connectorTtlMs = 4_000
    const attachments = new Attachments(edge)
    using running = connect(home.folder, service.port)
    const end = await attachments.take()
    const flow = openFlow(end, 'before ', false)
    await flow.ok
    edge.connectorTtlMs = 3_600_000
    await running.sees('"event":"renewed"')
    await once(attachments.controls[0]!, 'close')
    assert.equal(attachments.controls.length, 2)
    end.write(Buffer.from('and after'))
    end.end(() => undefined)
    assert.equal(await flow.bytes, 'before and after')
    await stop(running)
  })

  it('lives on its certificate when the session is over', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using service = await startService(echoAfterEnd)
    signedIn(home.folder, edge)
    new Attachments(edge)
    edge.connectorTtlMs = 1
    using first = connect(home.folder, service.port)
    await first.sees('"event":"ready"')
    await stop(first)
    edge.connectorTtlMs = 3_600_000
    signedIn(home.folder, edge, { expiresAt: 0 })
    const renewals = edge.callsTo('/v1/connectors/renew').length
    using second = connect(home.folder, service.port, ALLOW)
    await second.sees('"event":"ready"')
    assert.ok(edge.callsTo('/v1/connectors/renew').length > renewals)
    assert.equal(edge.callsTo('/v1/connectors').length, 1)
    await stop(second)
  })

  it('does not undo a list that was changed meanwhile, without a session either: exit 2, both lists', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using first = connect(home.folder, 9, ALLOW)
    await first.sees('"event":"ready"')
    await stop(first)
    signedIn(home.folder, edge, { expiresAt: 0 })
    attachments.allow = { ...SERVICE.allow, emailDomains: ['other.example'] }
    using second = connect(home.folder, 9, ALLOW)
    const { code, stderr } = await second.finished
    assert.equal(code, 2)
    assert.match(
      stderr,
      /admits domains other\.example; asked for was domains mycorp\.com \(ALLOW_LIST_DIFFERS\)/,
    )
  })

  it('renews when its certificate is refused at the door, and gives up when the renewal is', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.onControl = (ws) => {
      ws.send(JSON.stringify({ type: 'refused', code: 'CERTIFICATE_EXPIRED', message: 'too old' }))
      ws.close(4403)
    }
    edge.override = ({ path }) =>
      path === '/v1/connectors/renew' ? refusal('CERTIFICATE_REFUSED', 'not known here') : undefined
    using running = connect(home.folder, 9)
    const { code, stderr } = await running.finished
    assert.equal(code, 5)
    assert.match(stderr, /not known here/)
  })

  it('renews once when its data connections are closed without a word, and does not storm the edge', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const { controls } = new Attachments(edge)
    const closedAt: number[] = []
    const enough = Promise.withResolvers<void>()
    edge.onData = (_end, socket) => {
      socket.destroy()
      if (controls.length < 2) return
      closedAt.push(performance.now())
      if (closedAt.length === 4) enough.resolve()
    }
    using running = connect(home.folder, 9)
    await running.sees('"renewed"')
    await enough.promise
    assert.ok(closedAt[3]! - closedAt[0]! > 300, 'the new certificate is tried again and again, with pauses')
    assert.equal(edge.callsTo('/v1/connectors/renew').length, 1)
    assert.equal(controls.length, 2, 'one attachment, and one with the new certificate')
  })

  it('renews at once when another process has taken its place, and ends when the edge knows of two', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using running = connect(home.folder, 9)
    await running.sees('"event":"ready"')
    attachments.controls[0]!.close(4409)
    await running.sees('"event":"renewed"')
    await running.sees('"event":"reconnected"')
    await running.sees('"code":"CONNECTOR_REPLACED"')
    edge.override = ({ path }) =>
      path === '/v1/connectors/renew' ? refusal('CONNECTOR_SUPERSEDED', 'two have the key') : undefined
    attachments.controls[1]!.close(4409)
    const { code, stderr } = await running.finished
    assert.equal(code, 5)
    assert.match(stderr, /two have the key \(CONNECTOR_SUPERSEDED\)/)
  })

  it('says which process it is: the same at every attach, another one in the next process', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const attachments = new Attachments(edge)
    using first = connect(home.folder, 9)
    await first.sees('"event":"ready"')
    attachments.controls[0]!.terminate()
    await first.sees('"event":"reconnected"')
    await stop(first)
    using second = connect(home.folder, 9)
    await second.sees('"event":"ready"')
    const [one, again, other] = attachments.instanceIds
    assert.match(one!, /^[0-9a-f-]{36}$/)
    assert.equal(again, one)
    assert.notEqual(other, one)
    await stop(second)
  })

  it('names every bad entry of a list before anything is asked: exit 2', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const lists = [
      '--cloudauth',
      '--allowed_email_addresses',
      'a@b.example,nobody',
      '--allowed_email_domains',
      '*.x',
    ]
    using running = connect(home.folder, 9, lists)
    const { code, stderr } = await running.finished
    assert.equal(code, 2)
    assert.match(stderr, /"\*\.x".*"nobody"/)
    assert.equal(edge.calls.length, 0)
  })
})
