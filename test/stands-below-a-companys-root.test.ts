import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until } from './support/until.ts'

/** The CA of the edge's certificate below a root that somebody else keeps: Debian's Easy-RSA. */

const folder = makeTempFolder('company')
const pki = path.join(folder, 'pki')
const root = path.join(pki, 'ca.crt')
let edge: EdgeProcess

before(async () => {
  edge = await startEdge()
  easyrsa('init-pki')
  easyrsa('build-ca', 'nopass')
})
after(() => edge?.[Symbol.asyncDispose]())

function easyrsa(...args: string[]): void {
  const env = { PATH: process.env.PATH, EASYRSA: '/usr/share/easy-rsa', EASYRSA_PKI: pki, EASYRSA_ALGO: 'ec' }
  const given = { env: { ...env, EASYRSA_REQ_CN: 'Mycorp root' }, encoding: 'utf8' as const }
  const ran = spawnSync('/usr/share/easy-rsa/easyrsa', ['--batch', ...args], given)
  assert.equal(ran.status, 0, ran.stdout + ran.stderr)
}

const ca = (...args: string[]) => runPosternEdge(edge, ['ca', ...args])

async function request(name: string): Promise<string> {
  const csr = path.join(folder, `${name}.csr`)
  const { code, stderr } = await ca('request', '--out', csr)
  assert.equal(code, 0, stderr)
  return csr
}

/** What the root signs, with the root behind it. */
async function sign(name: string, as: 'ca' | 'server' = 'ca'): Promise<string> {
  easyrsa('import-req', await request(name), name)
  easyrsa('sign-req', as, name)
  return together(name, path.join(pki, 'issued', `${name}.crt`), root)
}

function together(name: string, ...files: string[]): string {
  const chain = path.join(folder, `${name}-chain.pem`)
  writeFileSync(chain, files.map((file) => readFileSync(file, 'utf8')).join(''))
  return chain
}

const importChain = (file: string, ...more: string[]) => ca('import', '--certificate', file, ...more)

/** What the edge shows to somebody who trusts one root and nothing else. */
function verified(trusted = root): string {
  const at = [
    '-connect',
    `127.0.0.1:${edge.port}`,
    '-servername',
    edge.domain,
    '-verify_hostname',
    edge.domain,
  ]
  const trust = ['-CAfile', trusted, '-verify_return_error']
  return spawnSync('openssl', ['s_client', ...at, ...trust], { encoding: 'utf8', input: '' }).stdout
}

const isOk = (shown: string) => /Verify return code: 0 \(ok\)/.test(shown)

async function refused(file: string, pattern: RegExp, ...more: string[]): Promise<void> {
  const before = readdirSync(path.join(edge.dataDir, 'ca')).sort()
  const { code, stderr } = await importChain(file, ...more)
  assert.equal(code, 2, stderr)
  assert.match(stderr, pattern)
  assert.deepEqual(readdirSync(path.join(edge.dataDir, 'ca')).sort(), before, 'nothing has changed')
}

test('what is no CA, of another key, not whole, or would be refused by clients changes nothing', async () => {
  const leaf = await sign('leaf', 'server')
  await refused(leaf, /would be refused by every client: .*\(USAGE_INVALID\)/)
  await sign('good')
  await refused(path.join(pki, 'issued/good.crt'), /holds 1 certificates/)
  await refused(root, /holds 1 certificates/)
  await refused(
    together('twice', path.join(pki, 'issued/good.crt'), path.join(pki, 'issued/leaf.crt')),
    /has no root/,
  )
  // signed, but by somebody else: with a foreign root of the same name
  const foreign = path.join(folder, 'foreign')
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const openssl = (...args: string[]) => {
    const ran = spawnSync('openssl', args, { encoding: 'utf8' })
    assert.equal(ran.status, 0, ran.stderr)
  }
  openssl(
    'req',
    '-x509',
    ...ec,
    '-keyout',
    `${foreign}.key`,
    '-out',
    `${foreign}.crt`,
    '-subj',
    '/CN=Mycorp root',
  )
  await refused(
    together('mixed', path.join(pki, 'issued/good.crt'), `${foreign}.crt`),
    /would be refused by every client/,
  )
  // a CA whose key was made elsewhere
  const elsewhere = path.join(folder, 'elsewhere')
  openssl(
    'req',
    '-new',
    ...ec,
    '-keyout',
    `${elsewhere}.key`,
    '-out',
    `${elsewhere}.csr`,
    '-subj',
    '/CN=Other CA',
  )
  easyrsa('import-req', `${elsewhere}.csr`, 'elsewhere')
  easyrsa('sign-req', 'ca', 'elsewhere')
  await refused(
    together('elsewhere', path.join(pki, 'issued/elsewhere.crt'), root),
    /for a key that is not here/,
  )
  // one that may sign for others, but not for this edge
  const limits = path.join(folder, 'limits.cnf')
  writeFileSync(
    limits,
    'basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\nnameConstraints = critical, permitted;DNS:other.com\n',
  )
  const limited = path.join(folder, 'limited.crt')
  const signer = ['-CA', root, '-CAkey', path.join(pki, 'private/ca.key'), '-days', '30']
  openssl(
    'x509',
    '-req',
    '-in',
    path.join(folder, 'good.csr'),
    ...signer,
    '-extfile',
    limits,
    '-out',
    limited,
  )
  await refused(together('limited', limited, root), /would be refused by every client: .*subtree/i)
})

test('a new edge may take any root; then only that one, and nobody notices the next CA', async () => {
  const first = await importChain(await sign('first'))
  assert.equal(first.code, 0, first.stderr)
  assert.match(first.stderr, /people trust sha256:[0-9a-f]{64}\n/)
  await until('the edge shows a certificate below the root', () => isOk(verified()))
  await refused(path.join(folder, 'first-chain.pem'), /was imported before/)

  const home = await makePerson({ origin: edge.origin, caFile: root }, 'operator@mycorp.com')
  const issuer = () => /issuer=(.*)/.exec(verified())?.[1]
  const before = issuer()
  const second = await importChain(await sign('second'))
  assert.equal(second.code, 0, second.stderr)
  await until('the next CA signs', () => issuer() !== undefined && issuer() !== before)
  const { code, stderr } = await runPostern(['session', 'list'], { home })
  assert.equal(code, 0, stderr)

  // from now on somebody trusts the root: another one is a step that has to be asked for
  const other = path.join(folder, 'other-root')
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  spawnSync('openssl', [
    'req',
    '-x509',
    ...ec,
    '-keyout',
    `${other}.key`,
    '-out',
    `${other}.crt`,
    '-subj',
    '/CN=Other',
  ])
  const limits = path.join(folder, 'ca.cnf')
  writeFileSync(limits, 'basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\n')
  const signed = path.join(folder, 'third.crt')
  const signer = ['-CA', `${other}.crt`, '-CAkey', `${other}.key`, '-days', '30', '-extfile', limits]
  const ran = spawnSync('openssl', ['x509', '-req', '-in', await request('third'), ...signer, '-out', signed])
  assert.equal(ran.status, 0, ran.stderr.toString())
  const third = together('third', `${other}.crt`, signed)
  await refused(third, /people trust another root: sha256:.*\(CONFIG_INVALID\)\n.*--unsafe-new-root/)
  const asked = await importChain(third, '--unsafe-new-root')
  assert.equal(asked.code, 0, asked.stderr)
  await until('the edge shows a certificate below the other root', () => isOk(verified(`${other}.crt`)))
})
