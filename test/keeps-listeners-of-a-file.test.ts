import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { quoteForShell } from '../demo/dev-login.ts'
import { findFreePort } from '../demo/free-port.ts'
import type { Program } from '../demo/program.ts'
import { type ConnectedService, connectService } from './support/connect-service.ts'
import { logIn, makeDevBrowser, makePerson } from './support/dev-browser.ts'
import { type EdgeProcess, startEdge } from './support/edge-process.ts'
import { type EventLine, readEvents } from './support/event-lines.ts'
import { connectTo, endOfRefused, readToEnd } from './support/listen.ts'
import { runPostern, spawnPostern } from './support/postern.ts'
import { endSessionUnnoticed } from './support/stored-session.ts'
import { startGreeter, type TcpService } from './support/tcp-services.ts'
import { makeTempFolder } from './support/temp-folder.ts'
import { until, within } from './support/until.ts'

/** `postern client listen -f listeners.yaml`. */

let edge: EdgeProcess
let home: string
const services: ConnectedService[] = []
const targets: TcpService[] = []

before(async () => {
  edge = await startEdge()
  home = await makePerson(edge, 'operator@mycorp.com')
  for (const name of ['one', 'two']) {
    const target = await startGreeter(`${name}\n`)
    targets.push(target)
    services.push(await connectService({ home, port: target.port, name }))
  }
})
after(async () => {
  for (const one of [...services, ...targets]) await one[Symbol.asyncDispose]()
  await edge?.[Symbol.asyncDispose]()
})

const hostOf = (index: number) => services[index]!.host
const entry = (host: string, local: number | string, more = '') =>
  `  - { host: ${host}, local: ${local}${more} }\n`

/** A file of listeners, and the command that has read it. */
interface Run extends AsyncDisposable {
  program: Program
  write(...entries: string[]): void
  /** Waits for the event number `count` of this name, 1 for the first. */
  event(name: string, count?: number): Promise<EventLine>
}

function writeListeners(file: string, entries: readonly string[]): void {
  writeFileSync(file, `listeners:\n${entries.join('')}`)
}

function startFile(entries: readonly string[], args: readonly string[] = [], person = home): Run {
  const file = path.join(makeTempFolder('listeners'), 'listeners.yaml')
  writeListeners(file, entries)
  const program = spawnPostern(['client', 'listen', '-f', file, '--json', ...args], { home: person })
  return {
    program,
    write: (...next) => writeListeners(file, next),
    event: (name, count = 1) =>
      program.output(() => readEvents(program).filter(({ event }) => event === name)[count - 1]),
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  }
}

/** What the service behind the place says first. */
async function greetingAt(place: number | string): Promise<string> {
  const socket = await connectTo(place)
  const [chunk] = await within(
    'the greeting',
    new Promise<[Buffer]>((resolve, reject) => {
      socket.once('data', (data) => resolve([data]))
      socket.once('error', reject)
    }),
  )
  socket.destroy()
  return String(chunk).trim()
}

const isRefused = async (port: number) => {
  return connectTo(port).then(
    (socket) => void socket.destroy(),
    ({ code }: NodeJS.ErrnoException) => code === 'ECONNREFUSED',
  )
}

describe('while it runs', () => {
  test('one bad entry is named with its line, and everything else goes on', async () => {
    const [first, second, third] = [await findFreePort(), await findFreePort(), await findFreePort()]
    const socketFile = path.join(makeTempFolder('sockets'), 'two.sock')
    const good = [entry(hostOf(0), first), entry(hostOf(1), second)]
    await using run = startFile(good)
    await run.event('ready', 2)
    assert.equal(await greetingAt(first), 'one')
    assert.equal(await greetingAt(second), 'two')
    const live = await connectTo(first)
    await within('the live flow', new Promise((resolve) => live.once('data', resolve)))

    // the second has gone from the file, but so has its order: it stays until the file is whole again
    run.write(good[0]!, entry('nowhere.elsewhere.example', 1), entry(hostOf(1), `unix:${socketFile}`))
    const failed = await run.event('reload.failed')
    const [problem, ...more] = failed.problems as { line: number; code: string; message: string }[]
    assert.deepEqual(more, [])
    assert.deepEqual([problem!.line, problem!.code], [3, 'EDGE_UNKNOWN'])
    assert.equal(failed.listeners, 3)
    assert.equal(await greetingAt(first), 'one')
    assert.equal(await greetingAt(second), 'two')
    assert.equal(await greetingAt(socketFile), 'two')

    run.write(good[0]!, entry(hostOf(0), third))
    assert.equal((await run.event('reloaded')).listeners, 2)
    assert.equal(await greetingAt(third), 'one')
    assert.ok(await isRefused(second))
    assert.equal(existsSync(socketFile), false)
    live.write('still here')
    assert.equal(
      String(await within('the echo', new Promise((resolve) => live.once('data', resolve)))),
      'still here',
    )
    live.destroy()
    assert.equal((await run.program.stop('SIGTERM')).code, 0)
  })

  test('a place can change its service, and what runs there is not cut', async () => {
    const port = await findFreePort()
    await using run = startFile([entry(hostOf(0), port)])
    await run.event('ready')
    const live = await connectTo(port)
    await within('the live flow', new Promise((resolve) => live.once('data', resolve)))
    run.write(entry(hostOf(1), port))
    await run.event('reloaded')
    assert.equal(await greetingAt(port), 'two')
    live.write('still one')
    assert.equal(
      String(await within('the echo', new Promise((resolve) => live.once('data', resolve)))),
      'still one',
    )
    live.destroy()
  })

  test('a hundred connections live through eight changes, and each of their bytes comes back', async () => {
    const [port, folder] = [await findFreePort(), makeTempFolder('sockets')]
    await using run = startFile([entry(hostOf(0), port)])
    await run.event('ready')
    const live = await Promise.all(Array.from({ length: 100 }, () => connectTo(port)))
    const ends = live.map((socket) => readToEnd(socket))
    let said = ''
    for (let change = 1; change <= 8; change++) {
      const line = `change ${change}\n`
      said += line
      for (const socket of live) socket.write(line)
      // the place itself leads elsewhere, and others come and go
      const passing = `unix:${path.join(folder, `${change}.sock`)}`
      run.write(entry(hostOf(change % 2), port), entry(hostOf(0), passing))
      await run.event('reloaded', change)
    }
    for (const socket of live) socket.end()
    const heard = await within('all is back', Promise.all(ends), 120_000)
    // who was taken after a change was led to where the place led then
    const greeting = /^end: (one|two)\n/
    assert.deepEqual(
      [...new Set(heard.map(({ ending, bytes }) => `${ending}: ${bytes}`.replace(greeting, 'end: ')))],
      [`end: ${said}`],
    )
    assert.doesNotMatch(run.program.stderr, /Warning/)
  })

  test('a port that is taken, a file that is no list and a file that is gone are told and end nothing', async () => {
    const [port, taken] = [await findFreePort(), createServer((socket) => socket.destroy())]
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const { port: takenPort } = taken.address() as { port: number }
    const file = path.join(makeTempFolder('listeners'), 'listeners.yaml')
    writeListeners(file, [entry(hostOf(0), port)])
    await using program = spawnPostern(['client', 'listen', '-f', file], { home })
    await program.matches(/ is at 127\.0\.0\.1:/)
    writeListeners(file, [entry(hostOf(0), port), entry(hostOf(1), takenPort)])
    await program.matches(/listeners\.yaml, line 3: .*another program listens there \(LISTEN_FAILED\)/)
    writeFileSync(file, 'listeners: {')
    await program.matches(/listeners\.yaml, line 1: .*\(LISTENERS_INVALID\)\n {2}correct the named lines/)
    rmSync(file)
    await program.matches(/cannot read .*listeners\.yaml: there is no such file/)
    assert.equal(await greetingAt(port), 'one')
    taken.close()
  })
})

describe('at the start', () => {
  test('nothing is opened when one entry is bad or one port is taken', async () => {
    const [port, taken] = [await findFreePort(), createServer((socket) => socket.destroy())]
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const { port: takenPort } = taken.address() as { port: number }
    const cases: [string, number, RegExp][] = [
      [entry(hostOf(1), 0), 2, /line 3: an entry names its port/],
      [entry(hostOf(1), takenPort), 1, /line 3: .*another program listens there \(LISTEN_FAILED\)/],
      [entry(hostOf(1), '0.0.0.0:1'), 2, /line 3: .*\(USAGE_INVALID\)\n.*unsafe_listen_all: true/],
    ]
    for (const [bad, exitCode, message] of cases) {
      await using run = startFile([entry(hostOf(0), port), bad])
      const { code, stderr, stdout } = await within('it ends', run.program.ended)
      assert.equal(code, exitCode, stderr)
      assert.match(stderr, message)
      assert.equal(stdout, '')
      assert.ok(await isRefused(port))
    }
    taken.close()
  })

  test('a file does not go with what its entries say', async () => {
    for (const [args, message] of [
      [['-f', 'x', '--local', '1'], /'-f, --file <file>' cannot be used with option '--local/],
      [['-f', 'x', '--unsafe-any-local-user'], /cannot be used with option '--unsafe-any-local-user'/],
      [['--local', '1'], /nothing says which service is to be where/],
      [['-f', '/nowhere/listeners.yaml'], /cannot read \/nowhere\/listeners\.yaml: there is no such file/],
    ] as [string[], RegExp][]) {
      const { code, stderr } = await runPostern(['client', 'listen', ...args], { home })
      assert.equal(code, 2, stderr)
      assert.match(stderr, message)
    }
  })

  test('a service that does not admit the person keeps nobody else’s from being served', async () => {
    await using closed = await connectService({
      home,
      port: targets[0]!.port,
      name: 'closed',
      allowedEmailAddresses: ['operator@mycorp.com'],
    })
    const other = await makePerson(edge, 'other@mycorp.com')
    const [port, closedPort] = [await findFreePort(), await findFreePort()]
    const before = targets[0]!.connections.length
    await using run = startFile([entry(closed.host, closedPort), entry(hostOf(1), port)], [], other)
    const waiting = await run.event('listener.waiting')
    assert.deepEqual([waiting.host, waiting.code], [closed.host, 'ACCESS_DENIED'])
    await run.event('ready')
    assert.equal(await within('a reset', endOfRefused(closedPort)), 'ECONNRESET')
    assert.equal((await run.event('flow.refused')).code, 'ACCESS_DENIED')
    assert.equal(await greetingAt(port), 'two')
    assert.equal(targets[0]!.connections.length, before)
  })
})

describe('a login that ran out', () => {
  test('is asked for once for all listeners of the edge', async () => {
    const person = await makePerson(edge, 'dev@mycorp.com')
    const opened = path.join(person, 'pages-opened')
    const browser = await makeDevBrowser(edge, person, 'dev@mycorp.com')
    const counting = path.join(person, 'counting-browser')
    const line = `echo page >> ${quoteForShell(opened)}; exec ${quoteForShell(browser)} "$@"`
    writeFileSync(counting, `#!/bin/sh\n${line}\n`, { mode: 0o755 })
    const ports = [await findFreePort(), await findFreePort()]
    const entries = ports.map((port, index) => entry(hostOf(index), port))
    await using run = startFile(entries, ['--browser', quoteForShell(counting)], person)
    await run.event('ready', 2)
    await endSessionUnnoticed(person)
    for (const file of globSync(path.join(person, 'edges', '*', 'certificates', '*.json'))) rmSync(file)
    const greetings = await Promise.all([...ports, ...ports, ...ports].map(greetingAt))
    assert.deepEqual(greetings, ['one', 'two', 'one', 'two', 'one', 'two'])
    assert.equal(readFileSync(opened, 'utf8'), 'page\n')
    assert.equal(readEvents(run.program).filter(({ event }) => event === 'sign-in.needed').length, 1)
  })

  test('is no reason to end where nobody can be asked: it is told, and a login brings everything back', async () => {
    const person = await makePerson(edge, 'dev@mycorp.com')
    await endSessionUnnoticed(person)
    const port = await findFreePort()
    await using run = startFile([entry(hostOf(0), port)], ['--batch'], person)
    const waiting = await run.event('listener.waiting')
    assert.equal(waiting.code, 'SESSION_ENDED')
    assert.equal(waiting.hint, `sign in: postern login --edge ${edge.origin}`)
    assert.equal(await within('a reset', endOfRefused(port)), 'ECONNRESET')
    await logIn(edge, person, 'dev@mycorp.com')
    assert.equal(await until('it is served', () => greetingAt(port)), 'one')
  })
})
