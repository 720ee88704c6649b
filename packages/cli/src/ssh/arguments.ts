import { PosternError } from '@postern/shared/errors'

/** Where the hosts are in the arguments of ssh and scp. Nothing else in them is looked at: they go on as they are. */

/** Options that take a value, as their own sources list them. */
const SSH_VALUES = 'BbcDEeFIiJLlmOoPpQRSWw'
const SCP_VALUES = 'cDFiJlMoPSX'

/** The destination of ssh: the first word that is no option.
 *  @throws USAGE_INVALID when there is none */
export function hostOfSsh(words: readonly string[]): string {
  const [destination] = operandsOf(words, SSH_VALUES)
  if (destination !== undefined) return hostOfDestination(destination)
  throw new PosternError('USAGE_INVALID', 'the host is missing', {
    hint: 'name it: postern ssh [user@]LABEL.DOMAIN',
  })
}

/** The hosts of scp's remote files, each once.
 *  @throws USAGE_INVALID when there is none */
export function hostsOfScp(words: readonly string[]): string[] {
  const hosts = operandsOf(words, SCP_VALUES).flatMap(hostOfFile)
  if (hosts.length > 0) return [...new Set(hosts)]
  throw new PosternError('USAGE_INVALID', 'no file is on a service', {
    hint: 'name one: postern scp FILE [user@]LABEL.DOMAIN:FILE',
  })
}

function operandsOf(words: readonly string[], withValue: string): string[] {
  const operands: string[] = []
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (word === '--') return [...operands, ...words.slice(at + 1)]
    if (!word.startsWith('-') || word === '-') operands.push(word)
    else if (takesNextWord(word, withValue)) at++
  }
  return operands
}

/** `-vp 22` takes it, `-vp22` has it. */
function takesNextWord(word: string, withValue: string): boolean {
  const at = [...word].findIndex((letter, index) => index > 0 && withValue.includes(letter))
  return at === word.length - 1 && at > 0
}

function hostOfDestination(destination: string): string {
  const uri = /^ssh:\/\/([^/]*?)(?::\d+)?\/?$/.exec(destination)?.[1]
  return afterUser(uri ?? destination)
}

/** scp's rule: a colon before any slash. */
function hostOfFile(file: string): string[] {
  const uri = /^scp:\/\/([^/]*?)(?::\d+)?(?:\/.*)?$/s.exec(file)?.[1]
  const remote = uri ?? /^([^/:]+):/.exec(file)?.[1]
  return remote === undefined ? [] : [afterUser(remote)]
}

function afterUser(text: string): string {
  return text.slice(text.lastIndexOf('@') + 1)
}
