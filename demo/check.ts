import { styleText } from 'node:util'
import { ADMITTED_DOMAIN, type DemoTown, envOf, OPERATOR, signIn } from './demo-town.ts'
import { Program } from './program.ts'

/** The whole round without a screen: people sign in, use the services, and one is turned away. */

const SSH_WORDS = 'hello over ssh'
const STRANGER = 'mallory@elsewhere.example'

/** @returns whether everything came back as it should */
export async function checkDemo(town: DemoTown): Promise<boolean> {
  const steps = [enterAsOperator, enterAsSecondPerson, enterBySsh, turnStrangerAway, readTheRecords]
  for (const step of steps) {
    const problem = await step(town)
    if (problem === undefined) continue
    process.stdout.write(`\n${styleText('red', 'This went wrong:')} ${problem}\n`)
    return false
  }
  process.stdout.write(`\n${styleText('green', 'All of it works.')}\n`)
  return true
}

/** What went wrong, or undefined. */
type Problem = string | undefined

async function enterAsOperator(town: DemoTown): Promise<Problem> {
  tellStep(`${OPERATOR} is signed in and says hello`)
  return sayHello(town, 'operator')
}

async function enterAsSecondPerson(town: DemoTown): Promise<Problem> {
  tellStep(`ann@${ADMITTED_DOMAIN} signs in at the page and says hello`)
  const login = await signIn(town, 'ann', `ann@${ADMITTED_DOMAIN}`)
  if (login.code !== 0) return `the sign-in ended with exit code ${login.code}\n${login.stderr}`
  return sayHello(town, 'ann')
}

async function sayHello(town: DemoTown, name: string): Promise<Problem> {
  const { code, stdout, stderr } = await clientTls(town, name)
  tellOutput(stdout)
  if (code !== 0) return `the client ended with exit code ${code}\n${stderr}`
  if (!stdout.includes('Hello!')) return `the service did not answer hello: ${JSON.stringify(stdout)}`
  return undefined
}

async function enterBySsh(town: DemoTown): Promise<Problem> {
  if (!town.ssh) {
    tellStep('ssh is left out: no sshd is installed (Debian: openssh-server)')
    return undefined
  }
  tellStep('ssh reaches the private sshd through postern')
  const args = ['-F', town.ssh.configFile, '-o', 'BatchMode=yes', town.ssh.host, `echo ${SSH_WORDS}`]
  const ssh = new Program('ssh', args, { stdin: '', env: envOf(town, 'ann') })
  const { code, stdout, stderr } = await ssh.ended
  tellOutput(stdout)
  if (code !== 0 || stdout !== `${SSH_WORDS}\n`) return `ssh ended with exit code ${code}\n${stderr}`
  return undefined
}

async function turnStrangerAway(town: DemoTown): Promise<Problem> {
  tellStep(`${STRANGER} signs in as well, and is not admitted`)
  const login = await signIn(town, 'mallory', STRANGER)
  if (login.code !== 0) return `the sign-in ended with exit code ${login.code}\n${login.stderr}`
  const connectionsBefore = town.text.service.countConnections()
  const { code, stdout, stderr } = await clientTls(town, 'mallory')
  tellOutput(stderr)
  if (code !== 5) return `the client of a stranger ended with exit code ${code} instead of 5`
  if (stdout !== '') return `a stranger was sent ${JSON.stringify(stdout)}`
  if (town.text.service.countConnections() !== connectionsBefore) return 'the service saw the stranger'
  return undefined
}

async function readTheRecords(town: DemoTown): Promise<Problem> {
  tellStep('the edge has recorded who was let in and who was not')
  const args = ['audit', 'list', '--json']
  const { code, stdout, stderr } = await new Program(town.launcher, args, {
    stdin: '',
    env: envOf(town, 'operator'),
  }).ended
  if (code !== 0) return `the audit log cannot be read, exit code ${code}\n${stderr}`
  const decisions = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ type }) => type === 'flow.decided' || type === 'certificate.refused')
  tellOutput(decisions.map(describeDecision).join('\n'))
  if (decisions.some(({ email }) => email === STRANGER)) return undefined
  return 'the refusal is not in the audit log'
}

function describeDecision({ at, email, label, decision, rule }: Record<string, unknown>): string {
  const time = new Date(Number(at)).toISOString().slice(11, 19)
  const words = decision === 'allow' ? styleText('green', 'let in      ') : styleText('red', 'turned away ')
  return `${time}  ${words}${String(email).padEnd(26)}${String(label).padEnd(26)}${rule}`
}

function clientTls(town: DemoTown, name: string) {
  const args = ['client', 'tls', '--host', town.text.host]
  return new Program(town.launcher, args, { stdin: 'hello\n', env: envOf(town, name) }).ended
}

function tellStep(sentence: string): void {
  process.stdout.write(`\n${styleText('bold', sentence)}\n`)
}

function tellOutput(text: string): void {
  for (const line of text.trimEnd().split('\n')) process.stdout.write(`  │ ${line}\n`)
}
