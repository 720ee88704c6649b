import { spawn, spawnSync } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs, stripVTControlCharacters, styleText } from 'node:util'
import { PASSWORD, postgresEnv, startPostgres } from '../packages/edge/test/postgres.ts'
import { keepOutput, makeRunFolder, noteSecret } from './secrets/run-record.ts'
import { KINDS_OF_A_WHOLE_RUN, scanOutputs } from './secrets/scan.ts'
import { missingPackages } from './support/debian-packages.ts'

/** The project's one test command, `npm test`: what the tests need, the build, the lint, the tests of the packages
 *  on their sources, and the end-to-end tests on the built programs. Nothing is skipped: what is missing is
 *  installed, or named and the run fails. */

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const PACKAGE_TESTS = ['packages/*/src/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'fuzz/*.test.ts']
const END_TO_END_TESTS = ['test/*.test.ts']
/** What runs once: an edge's store has no part in it, it is about the file itself, or it chooses its database. */
const ONCE: readonly string[] = [
  'admits-a-partners-certificates', // files of another CA
  'admits-programs-by-certificate', // files of other programs
  'bench-shows-every-row',
  'brings-a-fleet-back', // sockets of fifty connectors
  'carries-changes-to-every-edge', // on PostgreSQL by itself: several edges share one
  'carries-metrics-and-databases', // programs of a person's machine, and 200 MB
  'certifies-private-services', // what PostgreSQL and OpenSSL make of files
  'completes-commands',
  'demo-does-the-whole-round',
  'exposes-any-private-service', // what stands behind a connector
  'finds-edges-with-other-keys', // on PostgreSQL by itself: several edges share one
  'finds-secrets-in-output', // starts no edge
  'follows-the-operations-page', // runs SQL on the database's file
  'gets-its-certificate-by-acme', // TLS and files, nothing that is stored
  'goes-through-company-proxies', // sockets on the way to the edge
  'holds-back-a-fast-sender', // a minute of one flow's memory
  'installs-from-tarballs',
  'installs-ssh-config-and-takes-it-back', // files of a person
  'keeps-ca-keys-encrypted', // files of the edge
  'keeps-its-root-apart', // files of the edge
  'keeps-its-word-when-killed', // on PostgreSQL a transaction outlives the edge; by itself it runs there too
  'keeps-listeners-of-a-file', // ports of a person's machine
  'keeps-one-agent-key-per-host', // a person's ssh-agent
  'keeps-services-of-a-file', // a file of a server
  'knows-clients-behind-a-balancer', // the first bytes of connections
  'leads-clients-to-its-new-ca', // files of the edge, and of who pins its CA
  'listens-for-local-programs', // a port of a person's machine
  'moves-bytes-in-few-calls', // calls of the kernel
  'moves-to-postgresql', // from one to the other
  'notices-a-machine-that-is-gone', // a minute of silence on sockets
  'offers-services-as-sockets', // files of a person's machine
  'opens-the-persons-own-browser',
  'outlives-an-upgrade-of-its-files', // the thread that writes SQLite
  'passes-where-only-websockets-do', // sockets on the way to the edge
  'proves-names-behind-a-balancer', // on PostgreSQL by itself: several edges share one
  'publishes-what-is-revoked', // what OpenSSL makes of a list
  'records-who-did-what', // looks for secrets in the database's file
  'renews-its-certificate-under-load', // TLS and files, nothing that is stored
  'replaces-its-cas', // files of the edge
  'replaces-its-ssh-cas', // files of the edge and of a server
  'restores-from-a-backup',
  'runs-as-a-service-of-a-person',
  'runs-under-systemd',
  'sets-up-sshd-without-locking-anyone-out', // files of a server
  'signs-in-once-for-many', // counts tokens in the database's file
  'stands-below-a-companys-root', // files of the edge
  'starts-with-little', // files that are loaded, and connections
  'stays-up-under-abuse', // sockets, long before anything is stored
  'stops-clearly-without-a-disk', // the database's file on a disk of its own
  'survives-descriptor-exhaustion',
  'survives-stray-callbacks', // looks for secrets in the database's file
  'takes-new-certificate-files', // files and TLS, nothing that is stored
  'tells-the-service-who-comes', // what a connector writes to its target
  'tells-why-there-is-no-certificate', // TLS and files, nothing that is stored
  'understands-its-neighbour-versions', // what programs say to each other
  'works-where-there-is-only-ipv6', // sockets on the way to the edge
].map((name) => `test/${name}.test.ts`)
/** A test, or a file of tests, that takes longer hangs. */
const TEST_TIMEOUT_MS = 900_000
const LIMITS = [`--test-timeout=${TEST_TIMEOUT_MS}`]
const REPORTERS = ['--test-reporter=spec', '--test-reporter-destination=stdout']
/** More files than these are broken, not unsteady. */
const MAX_RUN_AGAIN = 4

const HELP = `usage: npm test -- [options] [FILE…]

  FILE                   run these test files only, without the lint
  --packages             run the tests of the packages only
  --end-to-end           run the end-to-end tests only
  --name PATTERN         run tests whose name matches only
  --no-install           install nothing: say what is missing and stop
`

interface Counts {
  tests: number
  passed: number
  failed: number
  skipped: number
}

interface Stage {
  title: string
  files: readonly string[]
  nodeOptions: readonly string[]
  env?: NodeJS.ProcessEnv
}

const { values, positionals } = parseArgs({
  options: {
    packages: { type: 'boolean', default: false },
    'end-to-end': { type: 'boolean', default: false },
    name: { type: 'string' },
    'no-install': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})

if (values.help) process.stdout.write(HELP)
else process.exitCode = (await runEverything()) ? 0 : 1

async function runEverything(): Promise<boolean> {
  process.chdir(ROOT)
  if (!isNodeNewEnough() || !providePackages()) return false
  if (!runCommand('build', ['npm', 'run', '--silent', 'build'])) return false
  const isWhole = positionals.length === 0 && !values.packages && !values['end-to-end']
  const isLintClean = !isWhole || runCommand('lint', ['npm', 'run', '--silent', 'lint'])

  await using postgres = await startPostgres() // one for all files
  Object.assign(process.env, postgresEnv(postgres))
  const record = makeRunFolder()
  noteSecret(record, { kind: 'database password', value: PASSWORD })
  const total: Counts = { tests: 0, passed: 0, failed: 0, skipped: 0 }
  const unsteady: string[] = []
  let isGreen = true
  for (const stage of chooseStages()) {
    const first = await runTests(stage, record)
    for (const key of ['tests', 'passed', 'failed', 'skipped'] as const) total[key] += first.counts[key]
    if (first.counts.tests === 0) tell(`${stage.title}: no test ran`)
    if (isPassed(first)) continue
    if (isWhole && (await passesAlone(stage, first, { record, unsteady })))
      total.failed -= first.counts.failed
    else isGreen = false
  }
  const isSilent = keepsSecrets(record, isWhole)
  if (!isLintClean) tell('the lint found something, see above')
  for (const file of unsteady) tell(`unsteady: ${file} failed once and passed alone; mend it`)
  process.stdout.write(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)
  return isGreen && isSilent && isLintClean && total.tests > 0
}

function isNodeNewEnough(): boolean {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major > 24 || (major === 24 && minor >= 21)) return true
  tell(`the tests need Node 24.21 or newer, this is ${process.versions.node}: run npm ci, then npm test`)
  return false
}

/** Installs the Debian packages that are missing, where that is allowed without asking anybody.
 *  @returns false after saying what to install */
function providePackages(): boolean {
  const missing = missingPackages()
  if (missing.length === 0) return true
  const sudo = process.getuid?.() === 0 ? [] : ['sudo', '-n']
  const mayInstall = sudo.length === 0 || spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0
  if (!mayInstall || values['no-install']) {
    tell('these Debian packages are missing, install them and run npm test again:')
    tell(`  sudo apt-get install -y --no-install-recommends ${missing.join(' ')}`)
    return false
  }
  const apt = [...sudo, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get']
  const install = ['install', '-y', '--no-install-recommends', ...missing]
  const isInstalled =
    runCommand('packages', [...apt, 'update']) && runCommand('packages', [...apt, ...install])
  const stillMissing = missingPackages()
  if (isInstalled && stillMissing.length === 0) return true
  tell(`could not install: ${stillMissing.join(' ')}`)
  return false
}

function chooseStages(): Stage[] {
  const packageStage = { title: 'packages', nodeOptions: ['--conditions=postern-source'] }
  const endToEndStage = { title: 'end to end', nodeOptions: [] }
  if (positionals.length > 0) {
    const files = positionals.map((file) =>
      path.relative(ROOT, path.resolve(process.env.INIT_CWD ?? ROOT, file)),
    )
    const [packageFiles, otherFiles] = [
      files.filter((file) => /^(packages|fuzz)\//.test(file)),
      files.filter((file) => !/^(packages|fuzz)\//.test(file)),
    ]
    return [
      { ...packageStage, files: packageFiles },
      { ...endToEndStage, files: otherFiles },
    ].filter((stage) => stage.files.length > 0)
  }
  const stages = [
    { ...packageStage, files: PACKAGE_TESTS, isWanted: values.packages || !values['end-to-end'] },
    { ...endToEndStage, files: END_TO_END_TESTS, isWanted: values['end-to-end'] || !values.packages },
    {
      title: 'end to end, on PostgreSQL',
      nodeOptions: [],
      env: { POSTERN_TEST_STORE: 'postgres' },
      files: END_TO_END_TESTS.flatMap((pattern) => globSync(pattern))
        .filter((file) => !ONCE.includes(file))
        .sort(),
      isWanted: values['end-to-end'] || !values.packages,
    },
  ]
  return stages.filter((stage) => stage.isWanted)
}

interface Result {
  exitCode: number
  counts: Counts
  failedFiles: string[]
}

function isPassed({ exitCode, counts }: Result): boolean {
  return exitCode === 0 && counts.failed === 0 && counts.tests > 0
}

/** Runs the few files that failed once more, each alone: two files at a time on a busy machine can push a deadline
 *  over. What fails alone fails the run, and what passes is named at its end.
 *  @param whole `unsteady` takes the names of those that passed */
async function passesAlone(
  stage: Stage,
  { failedFiles }: Result,
  { record, unsteady }: { record: string; unsteady: string[] },
): Promise<boolean> {
  if (failedFiles.length === 0 || failedFiles.length > MAX_RUN_AGAIN) return false
  for (const file of failedFiles) {
    const again = await runTests({ ...stage, title: `${stage.title}, alone`, files: [file] }, record)
    if (!isPassed(again)) return false
    unsteady.push(`${file} (${stage.title})`)
  }
  return true
}

/** Runs node's test runner, shows what it says and reads the counts at its end.
 *  @param record the folder that takes what is said meanwhile */
async function runTests({ title, files, nodeOptions, env }: Stage, record: string): Promise<Result> {
  const scratch = mkdtempSync(path.join(tmpdir(), 'postern-run-'))
  const failedList = path.join(scratch, 'failed-files')
  const name = values.name === undefined ? [] : [`--test-name-pattern=${values.name}`]
  const failures = [
    `--test-reporter=${path.join(ROOT, 'test/support/failed-files.ts')}`,
    `--test-reporter-destination=${failedList}`,
  ]
  const shown = [...nodeOptions, '--test', '--test-concurrency=2', ...LIMITS, ...name, ...files]
  const args = [...REPORTERS, ...failures, ...recordInto(record), ...shown]
  announce(title, `node ${shown.join(' ')}`)
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env, ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : {}) },
  })
  let tail = ''
  const keepOf = (stream: 'stdout' | 'stderr') =>
    keepOutput(record, { test: title, command: ['node', ...shown], stream })
  const [keepStdout, keepStderr] = [keepOf('stdout'), keepOf('stderr')]
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    process.stdout.write(text)
    keepStdout(text)
    tail = (tail + text).slice(-1_000_000)
  })
  child.stderr.on('data', (chunk: Buffer) => {
    process.stderr.write(chunk)
    keepStderr(chunk)
  })
  const exitCode = await new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? 1)))
  const failedFiles = readFileSync(failedList, 'utf8').split('\n').filter(Boolean)
  rmSync(scratch, { recursive: true })
  return {
    exitCode,
    counts: readCounts(stripVTControlCharacters(tail)),
    failedFiles: [...new Set(failedFiles.map((file) => path.relative(ROOT, path.resolve(file))))],
  }
}

/** Options of node that make every test process write down what its programs say, and which secrets it sees. */
function recordInto(folder: string): string[] {
  const url = pathToFileURL(path.join(ROOT, 'test/secrets/record-run.ts'))
  url.searchParams.set('folder', folder)
  return [`--import=${url.href}`]
}

/** Looks for every secret of the run in everything that was said.
 *  @returns false after naming what was found, and where */
function keepsSecrets(folder: string, isWhole: boolean): boolean {
  const result = scanOutputs(folder)
  rmSync(folder, { recursive: true })
  const missing = isWhole ? KINDS_OF_A_WHOLE_RUN.filter((kind) => !result.lookedFor.has(kind)) : []
  for (const kind of missing) tell(`no ${kind} was seen in the whole run: nothing could be looked for`)
  for (const { source, kind } of result.findings) {
    tell(`${kind} stands in ${source.stream} of ${source.command.join(' ')}, started by ${source.test}`)
  }
  const count = [...result.lookedFor.values()].reduce((sum, next) => sum + next, 0)
  const megabytes = (result.bytes / 1e6).toFixed(1)
  process.stdout.write(
    `\nlooked for ${count} secrets in ${result.outputs} outputs, ${megabytes} MB: ${result.findings.length} found\n`,
  )
  return result.findings.length === 0 && missing.length === 0
}

function readCounts(output: string): Counts {
  const read = (word: string) =>
    Number([...output.matchAll(new RegExp(`^ℹ ${word} (\\d+)$`, 'gm'))].at(-1)?.[1] ?? 0)
  return {
    tests: read('tests'),
    passed: read('pass'),
    failed: read('fail') + read('cancelled'),
    skipped: read('skipped') + read('todo'),
  }
}

function runCommand(title: string, [command = '', ...args]: readonly string[]): boolean {
  announce(title, [command, ...args].join(' '))
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (error) tell(`${command}: ${error.message}`)
  return status === 0
}

function announce(title: string, command: string): void {
  process.stdout.write(`\n${styleText('bold', `▸ ${title}`)}  ${styleText('dim', command)}\n`)
}

function tell(sentence: string): void {
  process.stderr.write(`${sentence}\n`)
}
