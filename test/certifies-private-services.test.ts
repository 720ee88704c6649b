import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import tls from 'node:tls'
import { Program } from '../demo/program.ts'
import { newDatabase, ownerOfServer, PASSWORD, ROLE, startPostgres } from '../packages/edge/test/postgres.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { startListener } from './support/listen.ts'
import { runPostern } from './support/postern.ts'
import { runPosternEdge } from './support/postern-edge.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { forgeCertificate } from './support/tls-peer.ts'
import { until, within } from './support/until.ts'

/** Certificates of private services: programs verify them end to end, through the edge, and nobody takes one for the edge. */

let edge: EdgeProcess
let operator: string
const open = new AsyncDisposableStack()
const folders = makeTempFolder('servers')

before(async () => {
  edge = open.use(await startEdge({ keepsPort: true }))
  operator = await makePerson(edge, 'operator@mycorp.com')
})
after(() => open.disposeAsync())

const ca = (...args: string[]) => runPosternEdge(edge, ['ca', ...args])

async function issueServer(out: string, ...args: string[]) {
  const folder = path.join(folders, out)
  const { code, stdout, stderr } = await ca('issue-server', '--out', folder, '--json', ...args)
  const file = (name: string) => path.join(folder, name)
  return { folder, file, code, stderr, serial: code === 0 ? String(JSON.parse(stdout).serial) : '' }
}

function openssl(...args: string[]) {
  const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

/** As the server wants it: readable by its user only. */
function giveToPostgres({ file }: { file: (name: string) => string }) {
  const { uid, gid } = ownerOfServer()
  const folder = makeTempFolder('tls')
  chownSync(folder, uid, gid)
  const give = (name: string) => {
    const target = path.join(folder, name)
    copyFileSync(file(name), target)
    chownSync(target, uid, gid)
    return target
  }
  return { ssl: 'on', ssl_cert_file: give('chain.pem'), ssl_key_file: give('key.pem') }
}

test('psql verifies the database behind the edge by its name, and hears when its certificate was revoked', async () => {
  const made = await issueServer('db', '--name', 'db.internal', '--name', '10.0.0.5')
  assert.equal(made.code, 0, made.stderr)
  for (const name of ['key.pem', 'server.pem']) assert.equal(statSync(made.file(name)).mode & 0o777, 0o600)
  const ours = made.file('ca.pem')
  const strict = ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', ours]
  for (const name of [
    ['-verify_hostname', 'db.internal'],
    ['-verify_ip', '10.0.0.5'],
  ]) {
    const { status, output } = openssl(...strict, ...name, made.file('certificate.pem'))
    assert.equal(status, 0, output)
  }

  await using postgres = await startPostgres(giveToPostgres(made))
  const database = new URL(await newDatabase(postgres)).pathname.slice(1)
  await using service = await connectService({ home: operator, port: postgres.port, name: 'database' })
  await using listener = await startListener({ home: operator, host: service.host })
  const psql = (settings: string) => {
    const at = `hostaddr=127.0.0.1 port=${listener.port} user=${ROLE} dbname=${database} sslmode=verify-full`
    const query = 'select version from pg_stat_ssl where pid = pg_backend_pid()'
    const env = { PATH: process.env.PATH, PGPASSWORD: PASSWORD, LANG: 'C.UTF-8', HOME: folders }
    const program = new Program('psql', ['-X', '-Atc', query, `${at} ${settings}`], { env, stdin: '' })
    return within('psql is done', program.ended)
  }
  const right = await psql(`host=db.internal sslrootcert=${ours}`)
  assert.equal(right.stdout, 'TLSv1.3\n', right.stderr)
  const misnamed = await psql(`host=other.internal sslrootcert=${ours}`)
  assert.match(misnamed.stderr, /does not match host name "other\.internal"/)
  const unknown = await psql(`host=db.internal sslrootcert=${edge.caFile}`)
  assert.match(unknown.stderr, /certificate verify failed/)

  const listed = JSON.parse((await ca('list', '--kind', 'server', '--json')).stdout).certificates
  assert.deepEqual(
    listed.map((row: { serial: string; names: string[] }) => [row.serial, row.names]),
    [[made.serial, ['db.internal', '10.0.0.5']]],
  )
  const exported = (await ca('export', '--kind', 'server')).stdout
  assert.equal(exported, readFileSync(ours, 'utf8'))

  const crl = path.join(folders, 'server-crl.pem')
  const fetchCrl = () => {
    const at = ['--cacert', edge.caFile, '--connect-to', `${edge.domain}::127.0.0.1:${edge.port}`]
    const url = `${edge.origin}/v1/crl/server.pem`
    assert.equal(spawnSync('curl', ['-sS', '--fail', ...at, url, '-o', crl]).status, 0)
  }
  fetchCrl()
  const before = await psql(`host=db.internal sslrootcert=${ours} sslcrl=${crl}`)
  assert.equal(before.stdout, 'TLSv1.3\n', before.stderr)
  const revoked = await ca('revoke', made.serial, '--reason', 'cessationOfOperation')
  assert.equal(revoked.code, 0, revoked.stderr)
  const refused = await until('its serial is on the list', async () => {
    fetchCrl()
    const { code, stderr } = await psql(`host=db.internal sslrootcert=${ours} sslcrl=${crl}`)
    return code !== 0 && stderr
  })
  assert.match(refused, /certificate verify failed/)
  const why = openssl('verify', '-crl_check', '-CAfile', ours, '-CRLfile', crl, made.file('certificate.pem'))
  assert.match(why.output, /certificate revoked/)
  const beside = await ca('crl', '--kind', 'server')
  writeFileSync(crl, beside.stdout)
  assert.match(openssl('crl', '-in', crl, '-noout', '-text').output, /Cessation Of Operation/)
  assert.match((await ca('list', '--kind', 'server')).stdout, /db\.internal,10\.0\.0\.5 .* revoked /)
})

test('names of the edge, wide ones and what is no name are refused, and nothing is written', async () => {
  const refused = async (pattern: RegExp, ...args: string[]) => {
    const { code, stderr, folder } = await issueServer('refused', ...args)
    assert.equal(code, 2, stderr)
    assert.match(stderr, pattern)
    assert.equal(existsSync(folder), false)
  }
  await refused(/is a name of the edge.*\(USAGE_INVALID\)/, '--name', edge.domain)
  await refused(/is a name of the edge/, '--name', 'db.internal', '--name', `mtls.${edge.domain}`)
  await refused(/is a name of the edge/, '--name', `crimson-thunder-8434.${edge.domain}`)
  await refused(/is one label/, '--name', 'db')
  await refused(/say --unsafe-wildcard/, '--name', '*.db.internal')
  await refused(
    /is a name of the edge/,
    '--unsafe-wildcard',
    '--name',
    '*.localhost.localhost',
    '--name',
    `*.${edge.domain}`,
  )
  await refused(/everybody's own machine/, '--name', '127.0.0.1')
  await refused(/cannot be valid for 399d .*\n.*to 398d/, '--name', 'db.internal', '--ttl', '399d')
  const wide = await issueServer('wide', '--unsafe-wildcard', '--name', '*.db.internal')
  assert.equal(wide.code, 0, wide.stderr)
})

test('the CA takes over in time for the programs that verify with it', async () => {
  const early = await ca('rotate', '--kind', 'server')
  assert.equal(early.code, 2)
  assert.match(early.stderr, /ca export --kind server before: --signs-in 30d/)
  const old = await issueServer('old', '--name', 'db.internal')
  const rotated = await ca('rotate', '--kind', 'server', '--signs-in', '2s')
  assert.equal(rotated.code, 0, rotated.stderr)
  const both = path.join(folders, 'both.pem')
  writeFileSync(both, (await ca('export', '--kind', 'server')).stdout)
  assert.equal(readFileSync(both, 'utf8').match(/BEGIN CERTIFICATE/g)?.length, 2)
  let count = 0
  const fresh = await until('the new one signs', async () => {
    const made = await issueServer(`fresh-${count++}`, '--name', 'db.internal')
    return openssl('verify', '-CAfile', old.file('ca.pem'), made.file('certificate.pem')).status !== 0 && made
  })
  for (const { file } of [old, fresh]) {
    const { status, output } = openssl('verify', '-CAfile', both, file('certificate.pem'))
    assert.equal(status, 0, output)
  }
  const forged = forgeCertificate({
    ca: {
      certificate: path.join(edge.dataDir, 'ca/server-ca.pem'),
      key: path.join(edge.dataDir, 'ca/server-ca.key'),
    },
    subjectAltName: `DNS:${edge.domain}`,
    usage: 'serverAuth',
  })
  const file = path.join(folders, 'forged.pem')
  writeFileSync(file, forged.cert)
  assert.match(openssl('verify', '-CAfile', both, file).output, /excluded subtree violation/)
})

test('a person’s client does not take it for the edge, not even with the key of its CA in the wrong hands', async () => {
  const home = await makePerson(edge, 'ann@mycorp.com')
  await edge.stop()
  const { dataDir, domain, port } = edge
  const identity = forgeCertificate({
    ca: { certificate: path.join(dataDir, 'ca/server-ca.pem'), key: path.join(dataDir, 'ca/server-ca.key') },
    subjectAltName: `DNS:${domain},DNS:*.${domain}`,
    usage: 'serverAuth',
  })
  let heard = ''
  const impostor = tls.createServer(identity, (socket) => {
    socket.on('data', (chunk) => (heard += chunk))
    socket.on('error', () => {})
  })
  impostor.on('tlsClientError', () => {})
  await once(impostor.listen(port, '127.0.0.1'), 'listening')
  const { code, stderr } = await runPostern(['session', 'list'], { home })
  impostor.close()
  assert.notEqual(code, 0)
  assert.match(stderr, /\(EDGE_UNTRUSTED\)/)
  assert.equal(heard, '', 'nothing was said to it')
})
