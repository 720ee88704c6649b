import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { Program } from '../demo/program.ts'
import { connectService } from './support/connect-service.ts'
import { makePerson } from './support/dev-browser.ts'
import { startEdge } from './support/edge-process.ts'
import { runPostern } from './support/postern.ts'
import { startGreeter } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { clientCertificateOf } from './support/tls-peer.ts'

test('openssl s_client with a Postern certificate passes bytes both ways', async () => {
  await using edge = await startEdge()
  await using service = await startGreeter('220 welcome\n')
  const home = await makePerson(edge, 'operator@mycorp.com')
  await using connected = await connectService({ home, port: service.port })
  await runPostern(['client', 'tls', '--host', connected.host], { home, stdin: '' })
  const { key, cert } = clientCertificateOf(home, connected.label)
  const folder = makeTempFolder('openssl')
  const files = { key: path.join(folder, 'key.pem'), cert: path.join(folder, 'cert.pem') }
  writeFileSync(files.key, key, { mode: 0o600 })
  writeFileSync(files.cert, cert)

  await using client = new Program('openssl', [
    's_client',
    ...['-connect', `127.0.0.1:${edge.port}`, '-servername', connected.host],
    ...['-cert', files.cert, '-key', files.key, '-CAfile', edge.caFile, '-verify_return_error', '-quiet'],
  ])
  await client.matches(/220 welcome/)
  client.child.stdin.write('EHLO mail\n')
  await client.matches(/EHLO mail/)
  const { bytesRead } = await service.connection(1)
  assert.equal(bytesRead, 'EHLO mail\n'.length)
})
