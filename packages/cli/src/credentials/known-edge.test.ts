import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { PosternError } from '@postern/shared/errors'
import { stateFolder } from './home.ts'
import { findEdgeOfHost, pickEdge, saveEdge, withOrigin } from './known-edge.ts'

let home = ''
beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), 'postern-edges-'))
})
afterEach(() => rmSync(home, { recursive: true }))

function know(origin: string): void {
  const domain = new URL(origin).hostname
  saveEdge(home, { origin, domain, issuer: origin, clientId: 'c', tokenEndpoint: `${origin}/token` })
}

test('a host belongs to the known edge one label above it', () => {
  know('https://edge.example.com')
  know('https://other.example.com:8443')
  const found = findEdgeOfHost(home, 'Crimson-Thunder-8434.EDGE.example.com.')
  assert.deepEqual([found.edge.origin, found.label], ['https://edge.example.com', 'crimson-thunder-8434'])
  for (const host of ['db.example.com', 'db.xedge.example.com']) {
    assert.throws(() => findEdgeOfHost(home, host), { code: 'EDGE_UNKNOWN' }, host)
  }
})

test('under a known domain, what can be no service leads to no sign-in', () => {
  know('https://edge.localhost:8443')
  for (const host of ['a.b.edge.localhost', 'edge.localhost', 'mtls.edge.localhost']) {
    for (const port of [undefined, 8443, 9443]) {
      assert.throws(
        () => findEdgeOfHost(home, host, { port }),
        ({ code, message, hint }) =>
          code === 'USAGE_INVALID' &&
          message === `${host} is not the host name of a service` &&
          /one label before the domain, as in \S+\.edge\.localhost;/.test(hint) &&
          !/login/.test(hint),
        host,
      )
    }
  }
})

test('an edge whose domain lies under that of another has its services', () => {
  know('https://edge.localhost:8443')
  know('https://b.edge.localhost:9443')
  assert.equal(findEdgeOfHost(home, 'one.b.edge.localhost').edge.origin, 'https://b.edge.localhost:9443')
})

test('an unknown edge gets the line to paste', () => {
  const hintOf = (port?: number) => {
    try {
      findEdgeOfHost(home, 'db.edge.example.com', { port })
    } catch (error) {
      return (error as { hint: string }).hint
    }
    return undefined
  }
  assert.equal(hintOf(), 'sign in: postern login --edge https://edge.example.com')
  assert.equal(hintOf(8443), 'sign in: postern login --edge https://edge.example.com:8443')
})

test('what is no host name never becomes a line to paste', () => {
  know('https://edge.example.com')
  const hosts = [
    'x.$(reboot)',
    'x.`id`',
    'a;b.example.com',
    "'.example.com",
    'bad host',
    'x.y|z',
    'x.-e',
    '../x.y',
  ]
  for (const host of [
    ...hosts,
    '',
    'x',
    '.',
    'x.',
    'a..b',
    `${'x.'.repeat(200)}com`,
    '[::1]',
    'x.y\nz',
    '*.y',
  ]) {
    assert.throws(
      () => findEdgeOfHost(home, host),
      ({ code, hint }) => code === 'USAGE_INVALID' && !/login/.test(hint),
      host,
    )
  }
})

test('edges with one domain are told apart by port, never by guess', () => {
  know('https://edge.localhost:8443')
  know('https://edge.localhost:9443')
  assert.throws(() => findEdgeOfHost(home, 'db-1.edge.localhost'), { code: 'USAGE_INVALID' })
  assert.equal(
    findEdgeOfHost(home, 'db-1.edge.localhost', { port: 9443 }).edge.origin,
    'https://edge.localhost:9443',
  )
  assert.throws(() => pickEdge(home), { code: 'USAGE_INVALID' })
  assert.equal(pickEdge(home, 'https://edge.localhost:8443').domain, 'edge.localhost')
})

test('the only known edge needs no name; none at all is EDGE_UNKNOWN', () => {
  assert.throws(() => pickEdge(home), { code: 'EDGE_UNKNOWN' })
  know('https://edge.example.com')
  assert.equal(pickEdge(home).origin, 'https://edge.example.com')
})

test('the state folder of each platform', () => {
  assert.equal(stateFolder({ POSTERN_HOME: '/x' }, 'linux'), '/x')
  assert.equal(stateFolder({ XDG_CONFIG_HOME: '/c' }, 'linux'), '/c/postern')
  assert.match(stateFolder({ XDG_CONFIG_HOME: 'relative' }, 'linux'), /\/\.config\/postern$/)
  assert.match(stateFolder({}, 'darwin'), /Library\/Application Support\/postern$/)
})

test('a hint names the edge, and no proxy is taken for it', () => {
  const hintOf = (hint: string) => {
    const told = withOrigin(new PosternError('USAGE_INVALID', 'x', { hint }), 'https://edge.example.com')
    return (told as PosternError).hint
  }
  assert.equal(hintOf('postern login --edge https://HOST'), 'postern login --edge https://edge.example.com')
  assert.equal(hintOf('write it as https://HOST:PORT'), 'write it as https://HOST:PORT')
})

test('a state that cannot be read is no state of somebody who never signed in', () => {
  writeFileSync(path.join(home, 'edges'), '')
  assert.throws(() => pickEdge(home), { code: 'STATE_INVALID', message: /^cannot read .*edges: / })
})
