import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { findFreePort } from '../demo/free-port.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { keygen, type OwnSshd, opens, startOwnSshd } from './support/own-sshd.ts'
import { runPostern } from './support/postern.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { startUpstreamProvider, type UpstreamProvider } from './support/upstream-provider.ts'

/** A server that admits a group of the company's provider, named behind a prefix, and nobody else: neither the
 *  service as such nor an account of the same name. */

const MEMBER = { email_verified: true, hd: 'mycorp.com' }

let provider: UpstreamProvider
let edge: EdgeProcess
let sshd: OwnSshd
let service: ConnectedService

before(async () => {
  const port = await findFreePort()
  provider = await startUpstreamProvider({
    edgeOrigin: `https://edge.localhost:${port}`,
    accounts: {
      operator: { ...MEMBER, sub: 'o1', email: 'operator@mycorp.com' },
      ann: { ...MEMBER, sub: 'a1', email: 'ann@mycorp.com', groups: ['staff', 'dba'] },
      // one group whose name pretends to be two names, and others that look like the right one
      mallory: {
        ...MEMBER,
        sub: 'm1',
        email: 'mallory@mycorp.com',
        groups: ['x,group:dba', 'dba ', 'DBA', 'group:dba', '*', 'db?', 'dba,root'],
      },
      root: { ...MEMBER, sub: 'r1', email: 'root@mycorp.com', groups: ['staff'] },
    },
  })
  const keys = { scopes: ['openid', 'email', 'groups'], email_domains: ['mycorp.com'] }
  edge = await startEdge({ port, identity: { ...provider.identity, keys } })
  sshd = await startOwnSshd({
    lines: [
      `TrustedUserCAKeys ${path.join(edge.dataDir, 'ca', 'ssh-user-ca.pub')}`,
      `AuthorizedPrincipalsFile ${writeFile('principals', 'group:dba\n')}`,
    ],
  })
  writeFileSync(path.join(sshd.folder, 'authorized_keys'), '') // certificates or nothing
  const operator = await signIn('operator')
  service = await connectService({ home: operator, port: sshd.port, name: 'db' })
  const ssh = ['--ssh-group-prefix', 'group:', '--ssh-local-part-domain', 'mycorp.com']
  const { code, stderr } = await runPostern(['service', 'update', service.label, ...ssh], { home: operator })
  assert.equal(code, 0, stderr)
})
after(async () => {
  await service?.[Symbol.asyncDispose]()
  await sshd?.[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
  await provider?.[Symbol.asyncDispose]()
})

function writeFile(name: string, text: string): string {
  const file = path.join(makeTempFolder('group'), name)
  writeFileSync(file, text)
  return file
}

/** @param login what the person types at the company's page; their provider says the rest */
async function signIn(login: string, home = makeTempFolder('home')): Promise<string> {
  await logIn(edge, home, login)
  return home
}

/** A new certificate, in files. */
async function keysign(home: string) {
  const args = ['client', 'ssh-keysign', '--host', service.host, '--batch']
  const { code, stderr } = await runPostern(args, { home })
  assert.equal(code, 0, stderr)
  const keyFile = path.join(home, '.ssh', service.host)
  return { keyFile, certificateFile: `${keyFile}-cert.pub` }
}

function principalsOf({ certificateFile }: { certificateFile: string }): string[] {
  const [, names = ''] = /Principals:\s+([\s\S]*?)\s+Critical/.exec(keygen('-L', '-f', certificateFile)) ?? []
  return names.split(/\s*\n\s*/)
}

test('a member of the group is admitted, and is not any more after a sign-in without it', async () => {
  const home = await signIn('ann')
  const asMember = await keysign(home)
  assert.deepEqual(principalsOf(asMember).slice(-2), ['group:dba', 'group:staff'])
  assert.ok(await opens(sshd, asMember), sshd.log())

  provider.accounts.set('ann', { ...provider.accounts.get('ann')!, groups: ['staff'] })
  const left = await runPostern(['logout'], { home })
  assert.equal(left.code, 0, left.stderr)
  const asFormer = await keysign(await signIn('ann', home))
  assert.ok(!principalsOf(asFormer).includes('group:dba'))
  assert.ok(!(await opens(sshd, asFormer)))
})

test('a group with a comma is no two names, and what only looks like the group is not it', async () => {
  const forged = await keysign(await signIn('mallory'))
  assert.ok(!principalsOf(forged).includes('group:dba'), principalsOf(forged).join())
  assert.ok(!(await opens(sshd, forged)))
})

test('root@ of the domain whose local parts are accounts is not root', async () => {
  const certificate = await keysign(await signIn('root'))
  assert.ok(principalsOf(certificate).includes('root@mycorp.com'))
  assert.ok(!principalsOf(certificate).includes('root'), principalsOf(certificate).join())
  const ann = await keysign(await signIn('ann'))
  assert.ok(principalsOf(ann).includes('ann'), 'others of that domain have theirs')
})
