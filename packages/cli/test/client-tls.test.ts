import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, it } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { FramedEnd } from '@postern/shared/stream/framed-end'
import { FakeEdge, refusal } from './fake-edge.ts'
import { createHome, runPostern, startPostern } from './run-postern.ts'
import { knownEdge, signedIn } from './signed-in.ts'

const HOST = 'crimson-thunder-8434.edge.localhost'
const TLS = ['client', 'tls', '--host', HOST]

/** A service that sends everything back once it has heard everything. */
function echo(edge: FakeEdge): void {
  edge.onFlow = (socket) => {
    const end = new FramedEnd(socket)
    const heard: Buffer[] = []
    end.receive({
      chunk: (bytes) => heard.push(bytes),
      end() {
        end.send('ok', { flowId: 'f1' })
        for (const bytes of heard) end.write(bytes)
        end.end(() => undefined)
      },
      drain: () => undefined,
      cut: () => undefined,
    })
    end.resume()
  }
}

describe('client tls', () => {
  it('carries stdin and stdout, and the answer after end of file', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    echo(edge)
    const { code, stdout, stderr } = await runPostern(home.folder, TLS, { stdin: 'hello' })
    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'hello', stderr: '' })
  })

  it('asks for a certificate once while it lives', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    echo(edge)
    for (let run = 0; run < 2; run++) await runPostern(home.folder, TLS, { stdin: 'x' })
    // the first request is repeated with the nonce that its answer brought
    assert.equal(edge.callsTo('/v1/certificates/client').length, 2)
  })

  it('asks the edge one thing when the certificate has run out, and nothing while it lives', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const { folder } = signedIn(home.folder, edge)
    echo(edge)
    await runPostern(home.folder, TLS, { stdin: 'x' })
    const asked = async () => {
      const before = edge.calls.length
      const { code, stderr } = await runPostern(home.folder, TLS, { stdin: 'x' })
      assert.equal(code, 0, stderr)
      return edge.calls.slice(before).map((call) => `${call.method} ${call.path}`)
    }
    assert.deepEqual(await asked(), [])
    const file = path.join(folder, 'certificates', `${HOST.split('.')[0]}.json`)
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), notAfter: Date.now() }))
    assert.deepEqual(await asked(), ['POST /v1/certificates/client'])
  })

  it('ends at once when the service ends, with stdin still open', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.onFlow = (socket) => {
      const end = new FramedEnd(socket)
      end.receive({ chunk() {}, end() {}, drain() {}, cut() {} })
      end.resume()
      end.write(Buffer.from('bye'))
      end.end(() => undefined)
    }
    const { code, stdout } = await runPostern(home.folder, TLS)
    assert.deepEqual({ code, stdout }, { code: 0, stdout: 'bye' })
  })

  it('says why and how to go on when the edge sends an error frame', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.onFlow = (socket) => {
      const end = new FramedEnd(socket)
      end.abort(new PosternError('SERVICE_OFFLINE', 'the service text is offline\u001b[2J'))
    }
    const { code, stdout, stderr } = await runPostern(home.folder, TLS)
    assert.equal(code, 6)
    assert.equal(stdout, '')
    assert.match(
      stderr,
      /^postern: the service text is offline\\u001b\[2J \(SERVICE_OFFLINE\)\n {2}start its/,
    )
  })

  it('exits 6 when the edge is cut off in the middle of the flow', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.onFlow = (socket) => {
      const end = new FramedEnd(socket)
      end.send('ok', { flowId: 'f1' })
      end.write(Buffer.from('half of'))
      setImmediate(() => socket.end())
    }
    const { code, stdout, stderr } = await runPostern(home.folder, TLS)
    assert.deepEqual({ code, stdout }, { code: 6, stdout: 'half of' })
    assert.match(stderr, /FLOW_CUT/)
  })

  it('takes an early close for a refused certificate, and forgets it', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const known = signedIn(home.folder, edge)
    edge.onFlow = (socket) => socket.destroy()
    const { code, stderr } = await runPostern(home.folder, TLS)
    assert.equal(code, 5)
    assert.match(stderr, /CERTIFICATE_REFUSED/)
    assert.equal(existsSync(path.join(known.folder, 'certificates', 'crimson-thunder-8434.json')), false)
  })

  it('takes the alert of a room that does not know its CA for a refused certificate', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using other = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.issueClient = (label, csr) => other.issueClient(label, csr)
    echo(edge)
    const { code, stderr } = await runPostern(home.folder, TLS, { stdin: 'x' })
    assert.equal(code, 5)
    assert.match(stderr, /CERTIFICATE_REFUSED/)
  })

  it('exits 5 with the reason when the edge does not issue a certificate', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.override = ({ path: called }) =>
      called === '/v1/certificates/client' ? refusal('ACCESS_DENIED', 'not available to you') : undefined
    const { code, stderr } = await runPostern(home.folder, TLS)
    assert.equal(code, 5)
    assert.equal(stderr, 'postern: not available to you (ACCESS_DENIED)\n  the edge knows what to do\n')
  })

  it('does not know the edge of a host: exit 4 and the line to paste', async () => {
    using home = createHome()
    const { code, stderr } = await runPostern(home.folder, [
      'client',
      'tls',
      '--host',
      'db.other.example',
      '--port',
      '8443',
    ])
    assert.equal(code, 4)
    assert.match(stderr, /postern login --edge https:\/\/other\.example:8443\n/)
  })

  it('needs a session and has nobody to ask: exit 4, the line to paste, no browser', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    knownEdge(home.folder, edge)
    const env = { BROWSER: `touch ${home.folder}/browser-was-started` }
    for (const more of [[], ['--batch', '--browser', `touch ${home.folder}/browser-was-started`]]) {
      const { code, stderr } = await runPostern(home.folder, [...TLS, ...more], { env })
      assert.equal(code, 4)
      assert.ok(stderr.includes(`postern login --edge ${edge.origin}\n`), stderr)
    }
    assert.equal(existsSync(path.join(home.folder, 'browser-was-started')), false)
    assert.equal(edge.calls.length, 0)
  })

  it('does not trust an edge with another CA, and cannot be talked into it', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    await using other = await new FakeEdge().start()
    const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    signedIn(home.folder, Object.assign(Object.create(edge), { ca: other.ca }))
    const { code, stderr } = await runPostern(home.folder, TLS, { env })
    assert.equal(code, 6, stderr)
    assert.match(stderr, /EDGE_UNTRUSTED/)
    assert.equal(edge.calls.length, 0)
  })

  it('says that nothing listens where the edge was', async () => {
    using home = createHome()
    const edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await edge[Symbol.asyncDispose]()
    const { code, stderr } = await runPostern(home.folder, TLS)
    assert.equal(code, 6)
    assert.match(stderr, /cannot reach edge\.localhost:\d+: nothing listens there \(EDGE_UNREACHABLE\)/)
  })

  it('names a corrupt state file', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    const known = signedIn(home.folder, edge)
    const { writeFileSync } = await import('node:fs')
    writeFileSync(path.join(known.folder, 'session.json'), '{"accessToken":')
    const { code, stderr } = await runPostern(home.folder, TLS)
    assert.equal(code, 1)
    assert.ok(stderr.includes(path.join(known.folder, 'session.json')), stderr)
  })

  it('ends with 130 when interrupted, and quietly when its reader has left', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const flows = Promise.withResolvers<FramedEnd>()
    edge.onFlow = (socket) => flows.resolve(new FramedEnd(socket))
    using interrupted = startPostern(home.folder, TLS)
    await flows.promise
    interrupted.child.kill('SIGINT')
    assert.equal((await interrupted.finished).code, 130)

    edge.onFlow = (socket) => {
      const end = new FramedEnd(socket)
      const more = () => {
        while (end.write(Buffer.alloc(65_536)));
      }
      end.receive({ chunk() {}, end() {}, drain: more, cut() {} })
      end.resume()
      more()
    }
    using left = startPostern(home.folder, TLS)
    left.child.stdout!.once('data', () => left.child.stdout!.destroy())
    const { code, stderr } = await left.finished
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  })
})
