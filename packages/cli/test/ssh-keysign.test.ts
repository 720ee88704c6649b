import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { describe, it } from 'node:test'
import { findEdgeOfHost } from '../src/credentials/known-edge.ts'
import { issueKeyFiles, lockDestination } from '../src/ssh/issue-key.ts'
import { FakeEdge, refusal } from './fake-edge.ts'
import { createHome, runPostern } from './run-postern.ts'
import { knownEdge, signedIn } from './signed-in.ts'

const HOST = 'crimson-thunder-8434.edge.localhost'
const KEYSIGN = ['client', 'ssh-keysign', '--host', HOST]
const CERTIFICATES = '/v1/certificates/ssh'

/** Files of the person's `~/.ssh`; HOME and the state folder are one here. */
function filesIn(home: string, host = HOST) {
  const key = path.join(home, '.ssh', host)
  return { key, certificate: `${key}-cert.pub`, knownHosts: knownHostsIn(home) }
}

function knownHostsIn(home: string): string {
  const edges = path.join(home, 'edges')
  return path.join(edges, readdirSync(edges)[0]!, 'known_hosts')
}

const keysign = (home: string, args: readonly string[] = KEYSIGN, env: Record<string, string> = {}) =>
  runPostern(home, [...args], { env: { HOME: home, ...env } })

function keygen(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ssh-keygen', args, { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return stdout
}

/** How often the edge was asked to sign; a first question is repeated with the nonce that its answer brought. */
const signed = (edge: FakeEdge) =>
  edge.callsTo(CERTIFICATES).filter(({ headers }) => headers.dpop !== undefined).length

describe('client ssh-keysign', () => {
  for (const [type, options] of [
    ['ED25519', []],
    ['ECDSA', ['--key-type', 'ecdsa']],
  ] as const) {
    it(`makes a key of kind ${type} and a certificate for it, for their owner only, without a word`, async () => {
      using home = createHome()
      await using edge = await new FakeEdge().start()
      signedIn(home.folder, edge)
      const done = await keysign(home.folder, [...KEYSIGN, ...options])
      assert.deepEqual(done, { code: 0, stdout: '', stderr: '' })
      const { key, certificate } = filesIn(home.folder)
      for (const file of [key, certificate]) assert.equal(statSync(file).mode & 0o777, 0o600)
      assert.equal(statSync(path.dirname(key)).mode & 0o777, 0o700)
      const [, fingerprint, , kind] = keygen('-lf', key).trim().split(' ')
      assert.equal(kind, `(${type})`)
      assert.match(
        keygen('-Lf', certificate),
        new RegExp(`Public key: ${type}-CERT ${escapePattern(fingerprint!)}`),
      )
    })
  }

  it('asks nobody while the certificate lives, and keeps the key afterwards', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await keysign(home.folder)
    const calls = edge.calls.length
    const { key, certificate } = filesIn(home.folder)
    const [before, first] = [key, certificate].map((file) => readFileSync(file, 'utf8'))
    assert.deepEqual(await keysign(home.folder), { code: 0, stdout: '', stderr: '' })
    assert.equal(edge.calls.length, calls)
    // the edge's clock goes on: less than a minute is left
    edge.clockMs = 245_000
    changeRemembered(home.folder, { clockOffsetMs: 245_000 })
    assert.equal((await keysign(home.folder)).code, 0)
    assert.equal(readFileSync(key, 'utf8'), before)
    assert.notEqual(readFileSync(certificate, 'utf8'), first)
  })

  it('says nothing to the edge but once, when twenty run at the same time', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    changeRemembered(home.folder, { clockOffsetMs: 0, dpopNonce: edge.nonce })
    const all = await Promise.all(Array.from({ length: 20 }, () => keysign(home.folder)))
    for (const done of all) assert.deepEqual(done, { code: 0, stdout: '', stderr: '' })
    assert.equal(signed(edge), 1)
    const { key, certificate } = filesIn(home.folder)
    assert.ok(keygen('-Lf', certificate).includes(keygen('-lf', key).split(' ')[1]!))
    assert.deepEqual(readdirSync(path.dirname(key)).sort(), [HOST, `${HOST}-cert.pub`])
  })

  it('takes what another process is just writing for no file of somebody else', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await keysign(home.folder)
    const asked = signed(edge)
    const destination = findEdgeOfHost(home.folder, HOST)
    const record = path.join(destination.edge.folder, 'ssh', `${destination.label}.key.json`)
    const text = readFileSync(record)
    const lock = await lockDestination(destination)
    const { HOME } = process.env
    process.env.HOME = home.folder
    try {
      rmSync(record) // as seen by whoever has looked before it was written
      const issuing = issueKeyFiles(destination, undefined, { mayAsk: false })
      writeFileSync(record, text)
      lock[Symbol.dispose]()
      await issuing
    } finally {
      process.env.HOME = HOME
    }
    assert.equal(signed(edge), asked, 'the key that is there is good')
  })

  it('another kind of key replaces both files', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await keysign(home.folder)
    assert.equal((await keysign(home.folder, [...KEYSIGN, '--key-type', 'ecdsa'])).code, 0)
    const { key, certificate } = filesIn(home.folder)
    assert.match(keygen('-lf', key), /ECDSA/)
    assert.ok(keygen('-Lf', certificate).includes(keygen('-lf', key).split(' ')[1]!))
    // and who does not say takes what there is
    const calls = edge.calls.length
    await keysign(home.folder)
    assert.equal(edge.calls.length, calls)
  })

  describe('files that are not ours', () => {
    const makers: Record<string, (file: string) => void> = {
      'a key of the person': (file) => void keygen('-q', '-t', 'ed25519', '-N', '', '-f', file),
      'some text': (file) => writeFileSync(file, 'mine\n'),
      'a link': (file) => symlinkSync('elsewhere', file),
      'a folder': (file) => mkdirSync(file),
      'a large file': (file) => writeFileSync(file, 'x'.repeat(100_000)),
    }
    for (const [what, make] of Object.entries(makers)) {
      it(`${what}: refused before the edge is asked, and left as it is`, async () => {
        for (const name of ['key', 'certificate'] as const) {
          using home = createHome()
          await using edge = await new FakeEdge().start()
          signedIn(home.folder, edge)
          const files = filesIn(home.folder)
          mkdirSync(path.join(home.folder, '.ssh'))
          make(files[name])
          const before = describeFile(files[name])
          const refused = await keysign(home.folder)
          assert.equal(refused.code, 1)
          assert.match(refused.stderr, /is not a file that postern made.*\(SSH_FILE_FOREIGN\)/)
          assert.equal(edge.calls.length, 0)
          assert.deepEqual(describeFile(files[name]), before)
          assert.ok(!existsSync(files[name === 'key' ? 'certificate' : 'key']))
        }
      })
    }

    it('a key that replaced ours', async () => {
      using home = createHome()
      await using edge = await new FakeEdge().start()
      signedIn(home.folder, edge)
      await keysign(home.folder)
      const { key } = filesIn(home.folder)
      spawnSync('rm', [key])
      keygen('-q', '-t', 'ed25519', '-N', '', '-f', key)
      const before = readFileSync(key)
      assert.match((await keysign(home.folder)).stderr, /SSH_FILE_FOREIGN/)
      assert.deepEqual(readFileSync(key), before)
    })
  })

  it('mends what is lost or damaged of our own', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await keysign(home.folder)
    const { key, certificate } = filesIn(home.folder)
    for (const breakIt of [
      () => spawnSync('rm', [certificate]),
      () => spawnSync('rm', [key]),
      () => spawnSync('rm', [key, certificate]),
    ]) {
      breakIt()
      assert.deepEqual(await keysign(home.folder), { code: 0, stdout: '', stderr: '' })
      assert.ok(keygen('-Lf', certificate).includes(keygen('-lf', key).split(' ')[1]!))
    }
  })

  it('one line and its hint when the person is not admitted, and no file', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.override = ({ path }) =>
      path === CERTIFICATES ? refusal('ACCESS_DENIED', `${HOST} is not available to you`) : undefined
    const { code, stdout, stderr } = await keysign(home.folder)
    assert.deepEqual([code, stdout], [5, ''])
    assert.match(stderr, /^postern: \S+ is not available to you \(ACCESS_DENIED\)\n {2}[^\n]+\n$/)
    assert.ok(!existsSync(path.join(home.folder, '.ssh')))
  })

  it('one line when the edge is not there, and no file', async () => {
    using home = createHome()
    const edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await edge[Symbol.asyncDispose]()
    const { code, stderr } = await keysign(home.folder)
    assert.equal(code, 6)
    assert.match(stderr, /^postern: [^\n]+ \(EDGE_UNREACHABLE\)\n {2}[^\n]+\n$/)
    assert.ok(!existsSync(path.join(home.folder, '.ssh')))
  })

  it('exit 4 and the line to paste where nobody can be asked', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    knownEdge(home.folder, edge)
    const { code, stderr } = await keysign(home.folder)
    assert.equal(code, 4)
    assert.match(stderr, new RegExp(`postern login --edge ${edge.origin}\n`))
    const other = await keysign(home.folder, ['client', 'ssh-keysign', '--host', 'db.other.example'])
    assert.equal(other.code, 4)
    assert.match(other.stderr, /EDGE_UNKNOWN/)
  })

  it('makes no path of what is not a label of a known domain', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const refuses = async (host: string, exitCode: number, reason: RegExp) => {
      const { code, stderr } = await keysign(home.folder, ['client', 'ssh-keysign', `--host=${host}`])
      assert.equal(code, exitCode, host)
      assert.match(stderr, reason)
    }
    const hosts = ['../x.edge.localhost', 'a/b.edge.localhost', '..edge.localhost', 'x\\y.edge.localhost']
    for (const host of [...hosts, "'$(touch x)'.edge.localhost", '-x.edge.localhost']) {
      await refuses(host, 2, /is not the host name of a service \(USAGE_INVALID\)/)
    }
    await refuses('a.b.edge.localhost', 2, /one label before the domain/)
    assert.deepEqual(edge.calls, [])
    assert.ok(!existsSync(path.join(home.folder, '.ssh')))
  })

  for (const end of ['mysocket-dummy', 'postern-dummy', 'POSTERN-DUMMY.']) {
    it(`takes the end .${end} off`, async () => {
      using home = createHome()
      await using edge = await new FakeEdge().start()
      signedIn(home.folder, edge)
      const host = HOST.replace('crimson', 'Crimson')
      assert.equal(
        (await keysign(home.folder, ['client', 'ssh-keysign', '--host', `${host}.${end}`])).code,
        0,
      )
      assert.ok(existsSync(filesIn(home.folder).key))
    })
  }

  it('says how much the clock is off', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.clockMs = -600_000
    const { code, stderr } = await keysign(home.folder)
    assert.equal(code, 0, stderr)
    assert.match(
      stderr,
      /^postern: warning: this machine's clock is 10 min ahead of the edge's;.*\(CLOCK_OFF\)\n$/,
    )
  })

  it('accepts no certificate of another key', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    const { publicKey } = generateKeyPairSync('ed25519')
    const x = publicKey.export({ format: 'jwk' }).x!
    const blob = Buffer.concat([
      Buffer.from('0000000b7373682d6564323535313900000020', 'hex'),
      Buffer.from(x, 'base64url'),
    ])
    edge.override = (call) =>
      call.path === CERTIFICATES
        ? { status: 200, body: edge.ssh.certify(`ssh-ed25519 ${blob.toString('base64')}`, HOST, Date.now()) }
        : undefined
    const { code, stderr } = await keysign(home.folder)
    assert.equal(code, 6)
    assert.match(stderr, /not of the key that asked/)
    assert.ok(!existsSync(filesIn(home.folder).key))
  })

  it('logging out, or in again, takes keys and certificates away, and leaves what others put there', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    await keysign(home.folder)
    const other = HOST.replace('8434', '1')
    await keysign(home.folder, ['client', 'ssh-keysign', '--host', other])
    const { key, certificate } = filesIn(home.folder)
    writeFileSync(filesIn(home.folder, other).key, 'mine now')
    chmodSync(filesIn(home.folder, other).key, 0o600)
    assert.equal((await keysign(home.folder, ['logout'])).code, 0)
    assert.ok(!existsSync(key) && !existsSync(certificate))
    assert.equal(readFileSync(filesIn(home.folder, other).key, 'utf8'), 'mine now')
  })
})

describe('host keys on record', () => {
  const KEY = keyLine(1)
  const OTHER = keyLine(2)

  it('the host CA for all, and the keys of a service that has a record', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [KEY], revision: 1 }
    assert.equal((await keysign(home.folder)).code, 0)
    const { knownHosts } = filesIn(home.folder)
    assert.equal(statSync(knownHosts).mode & 0o777, 0o600)
    assert.equal(
      readFileSync(knownHosts, 'utf8'),
      `# written by postern\n@cert-authority *.edge.localhost ${edge.ssh.hostCaLine}\n${HOST} ${KEY}\n`,
    )
    assert.match(keygen('-F', HOST, '-f', knownHosts), /found: line 3/)
  })

  it('other keys, not accepted yet: said each time, and the old ones stay', async () => {
    using home = createHome()
    await using edge = await new FakeEdge().start()
    signedIn(home.folder, edge)
    edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [KEY], revision: 1, pending: true }
    for (let round = 0; round < 2; round++) {
      const { code, stderr } = await keysign(home.folder)
      assert.equal(code, 0)
      assert.match(
        stderr,
        /shows other host keys .*\n.*postern service accept-host-keys crimson.*HOST_KEY_CHANGED/,
      )
    }
    edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [OTHER], revision: 2, pending: false }
    assert.deepEqual(await keysign(home.folder), { code: 0, stdout: '', stderr: '' })
    assert.ok(readFileSync(filesIn(home.folder).knownHosts, 'utf8').endsWith(`${HOST} ${OTHER}\n`))
  })

  for (const [what, change] of Object.entries({
    'an older record': (edge: FakeEdge) => {
      edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [OTHER], revision: 1 }
    },
    'a record of another host': (edge: FakeEdge) => {
      const { describeHostKeys } = edge.ssh
      edge.ssh.describeHostKeys = (_host, now) => describeHostKeys.call(edge.ssh, 'other.edge.localhost', now)
    },
    'a record signed by somebody else': (edge: FakeEdge) => {
      const { signRecord } = edge.ssh
      const { privateKey } = generateKeyPairSync('ed25519')
      edge.ssh.signRecord = (claims) => signRecord.call(edge.ssh, claims, privateKey)
    },
    'a line in place of a key': (edge: FakeEdge) => {
      edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [`${OTHER}\n* ${OTHER}`], revision: 3 }
    },
  })) {
    it(`${what} is refused, and nothing changes`, async () => {
      using home = createHome()
      await using edge = await new FakeEdge().start()
      signedIn(home.folder, edge)
      edge.ssh.hostKeys = { ...edge.ssh.hostKeys, keys: [KEY], revision: 2 }
      edge.ssh.ttlMs = 30_000 // asks each time
      await keysign(home.folder)
      const before = readFileSync(filesIn(home.folder).knownHosts, 'utf8')
      assert.ok(before.includes(KEY))
      change(edge)
      assert.notEqual((await keysign(home.folder)).code, 0)
      assert.equal(readFileSync(filesIn(home.folder).knownHosts, 'utf8'), before)
    })
  }
})

function keyLine(fill: number): string {
  const head = Buffer.from('0000000b7373682d6564323535313900000020', 'hex')
  return `ssh-ed25519 ${Buffer.concat([head, Buffer.alloc(32, fill)]).toString('base64')}`
}

function describeFile(file: string): string {
  const stats = lstatSync(file)
  return `${stats.mode} ${stats.size} ${stats.mtimeMs} ${stats.isFile() ? readFileSync(file, 'utf8') : ''}`
}

function changeRemembered(home: string, remembered: object): void {
  const edges = path.join(home, 'edges')
  const file = path.join(edges, readdirSync(edges)[0]!, 'remembered.json')
  writeFileSync(file, JSON.stringify(remembered))
}

function escapePattern(text: string): string {
  return text.replace(/[^A-Za-z0-9]/g, '\\$&')
}
