import { once } from 'node:events'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, styleText } from 'node:util'
import { checkDemo } from './check.ts'
import { takeDemoFolder } from './demo-folder.ts'
import { ADMITTED_DOMAIN, type DemoTown, DOMAIN, OPERATOR, startDemoTown } from './demo-town.ts'
import { quoteForShell } from './dev-login.ts'

/** `npm run demo`: Postern whole, on this machine only, with everything of it in one folder. */

const DEFAULT_FOLDER = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), '.demo')

const HELP = `usage: npm run demo -- [--check | --json] [--folder DIR]

  --check       do the whole round without a screen, print what came back, exit 0 or 1
  --json        print one JSON line when ready, run until SIGINT
  --folder DIR  where everything is kept, emptied at the start (.demo)
`

const { values } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    folder: { type: 'string', default: DEFAULT_FOLDER },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) {
  process.stdout.write(HELP)
} else {
  try {
    process.exitCode = await runDemo(path.resolve(process.env.INIT_CWD ?? '.', values.folder))
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}

async function runDemo(folder: string): Promise<number> {
  const stop = stopSignal()
  takeDemoFolder(folder)
  if (!values.json)
    process.stdout.write(styleText('dim', 'Starting an edge, private services and connectors …\n'))
  await using town = await startDemoTown(folder)
  if (values.check) {
    const isGood = await Promise.race([checkDemo(town), stop])
    return isGood ? 0 : 1
  }
  if (values.json) process.stdout.write(`${JSON.stringify(describe(town))}\n`)
  else showDemo(town)

  const failure = await Promise.race([stop, firstToEnd(town)])
  if (failure === undefined) return 0
  process.stderr.write(`demo: ${failure}\n`)
  return 1
}

function stopSignal(): Promise<undefined> {
  const signals = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => once(process, signal))
  return Promise.race(signals).then(() => undefined)
}

/** A demo whose edge has died is no demo. */
async function firstToEnd(town: DemoTown): Promise<string> {
  return Promise.race(
    town.programs.map(async (program) => {
      const { code, signal, stderr } = await program.ended
      return `a part of the demo ended (${code ?? signal}): ${program.name}\n${stderr}`
    }),
  )
}

function describe(town: DemoTown) {
  return {
    postern: town.launcher,
    edge: town.origin,
    domain: DOMAIN,
    port: town.port,
    caFile: town.caFile,
    host: town.text.host,
    sshHost: town.ssh?.host ?? null,
    posternHome: town.operatorHome,
    target: `127.0.0.1:${town.text.service.port}`,
  }
}

function showDemo(town: DemoTown): void {
  const postern = quoteForShell(town.launcher)
  const line = (text: string) => styleText('cyan', text)
  const sshRow = town.ssh ? `\n  ssh        ${town.ssh.host} → an sshd of the demo's own` : ''
  const sshLine = town.ssh
    ? `\n  ${line(`ssh -F ${quoteForShell(town.ssh.configFile)} ${town.ssh.host}`)}\n`
    : '\n  (no sshd is installed here, so there is no ssh line; Debian: openssh-server)\n'
  const colleague = `POSTERN_HOME=${quoteForShell(path.join(town.folder, 'colleague'))}`
  process.stdout.write(`
${styleText('bold', 'Postern, on this machine only')}

  edge       ${town.origin}
  text       ${town.text.host} → 127.0.0.1:${town.text.service.port}, a small text service${sshRow}
  admitted   everybody of ${ADMITTED_DOMAIN}
  signed in  ${OPERATOR}, who exposes both and is admin

${styleText('bold', 'Paste these into another terminal')}

  ${line(`echo hello | ${postern} client tls --host ${town.text.host}`)}
${sshLine}
${styleText('bold', 'Or be somebody else')}: any address will do at the page, only ${ADMITTED_DOMAIN} gets in

  ${line(`export ${colleague}`)}
  ${line(`${postern} login --edge ${town.origin} --ca-file ${quoteForShell(town.caFile)}`)}

Who comes and goes is shown here. Ctrl-C ends everything.

`)
  town.onEvent((service, event) => {
    if (event.event === 'flow.opened') process.stdout.write(`  ${service}: ${event.email} came in\n`)
    if (event.event === 'flow.closed') process.stdout.write(`  ${service}: ${event.email} left\n`)
  })
}
