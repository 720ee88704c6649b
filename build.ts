import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild'

/** Bundles the two programs into `packages/{cli,edge}/dist`: every package of npm goes in, so a start reads a few
 *  files instead of hundreds, and what a command does not need stays in a chunk that it does not load. */

const ROOT = path.dirname(fileURLToPath(import.meta.url))

/** A process that is still running may load a chunk of the build it was started from. */
const KEEP_OLD_CHUNKS_MS = 3_600_000

const SHARED_OPTIONS: BuildOptions = {
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  splitting: true,
  minifySyntax: true,
  minifyWhitespace: true,
  conditions: ['postern-source'],
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
}

const EDGE_OPTIONS: BuildOptions = {
  keepNames: true, // oidc-provider finds its settings by the names of its classes
  // some packages are CommonJS and call require for what Node has built in
  banner: {
    js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
  },
}

/** What `postern client` needs to start: with a live certificate, and to get one. */
const START = ['commands/client/tls.ts', 'commands/client/ssh-keysign.ts', 'credentials/issue.ts']

export type ProgramName = 'cli' | 'edge'

/** `node build.ts edge` builds one of them, no argument both. */
if (import.meta.main) {
  const wanted = process.argv.slice(2)
  for (const name of ['cli', 'edge'] as const) {
    if (wanted.length === 0 || wanted.includes(name)) await bundleProgram(name)
  }
}

/** @param options for builds that are not to be handed out: another folder, version, source
 *  @returns which file of the sources went where */
export async function bundleProgram(
  name: ProgramName,
  options: { outdir?: string; version?: string; plugins?: Plugin[] } = {},
): Promise<Metafile> {
  const packageFolder = path.join(ROOT, 'packages', name)
  const outdir = options.outdir ?? path.join(packageFolder, 'dist')
  const version = options.version ?? (await readVersion(packageFolder))
  const source = path.join(packageFolder, 'src')
  const define = { POSTERN_VERSION: JSON.stringify(version) }
  const threads = await bundleThreads(source, define)
  const result = await build({
    ...SHARED_OPTIONS,
    ...(name === 'edge' ? EDGE_OPTIONS : {}),
    plugins: [...(options.plugins ?? []), ...(name === 'cli' ? [takeBuiltins(), joinStart(source)] : [])],
    entryPoints: { main: path.join(source, 'main.ts') },
    outdir,
    chunkNames: 'chunks/[name]-[hash]',
    define: { ...define, POSTERN_THREADS: JSON.stringify(threads.code) },
  })
  const metafile = result.metafile!
  const licenses = await collectLicenses({ ...metafile.inputs, ...threads.inputs })
  await writeFile(path.join(outdir, 'third-party-licenses.txt'), licenses)
  const written = new Set(Object.keys(metafile.outputs).map((file) => path.basename(file)))
  await removeOldChunks(path.join(outdir, 'chunks'), written)
  return metafile
}

/** The code of every thread, which becomes part of the program that starts it: see start-thread.ts. */
async function bundleThreads(
  source: string,
  define: Record<string, string>,
): Promise<{ code: Record<string, string>; inputs: Metafile['inputs'] }> {
  const files = (await readdir(source, { recursive: true })).filter((file) => file.endsWith('-worker.ts'))
  const { outputFiles = [], metafile } = await build({
    ...SHARED_OPTIONS,
    define,
    format: 'cjs', // what a thread takes as text
    splitting: false,
    entryPoints: files.map((file) => path.join(source, file)),
    outdir: source, // nothing is written
    write: false,
  })
  const named = outputFiles.map(({ path: file, text }) => [path.basename(file, '.js'), text] as const)
  return { code: Object.fromEntries(named), inputs: metafile!.inputs }
}

/** Takes what Node has built in from the process instead of importing it: for an import Node looks at every member of
 *  the module, and so loads much that nobody asked for, such as `fs.promises` and the streams of `fs`. */
function takeBuiltins(): Plugin {
  return {
    name: 'take-builtins',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^[a-z_:/0-9]+$/ }, ({ path: id, kind }) => {
        if (!isBuiltin(id)) return undefined
        const namespace = kind === 'require-call' ? 'required-builtin' : 'builtin'
        return { path: id.replace(/^node:/, ''), namespace, sideEffects: false }
      })
      onLoad({ filter: /./, namespace: 'required-builtin' }, ({ path: id }) => ({
        contents: `module.exports = ${takeBuiltin(id)}`,
      }))
      onLoad({ filter: /./, namespace: 'builtin' }, ({ path: id }) => ({ contents: describeBuiltin(id) }))
    },
  }
}

function takeBuiltin(id: string): string {
  return `process.getBuiltinModule('node:${id}')`
}

/** One constant for each member, which the bundler leaves out where nobody imports it. */
function describeBuiltin(id: string): string {
  const names = Object.keys(process.getBuiltinModule(`node:${id}`)!).filter((name) => name !== 'default')
  const members = names.map(
    (name, index) => `const m${index} = /* @__PURE__ */ take('${name}'); export { m${index} as ${name} }`,
  )
  return `const builtin = ${takeBuiltin(id)}
const take = (name) => builtin[name]
export default builtin
${members.join('\n')}`
}

/** Puts what `main.ts` loads at once into one chunk, and what a new certificate takes into a second: a dozen small ones
 *  take twice as long. The bundler makes a chunk of the files that the same entry points share, and each late import is an
 *  entry point: so each of them gets all files of the start. */
function joinStart(source: string): Plugin {
  const imports = START.map((file) => `import ${JSON.stringify(path.join(source, file))}`).join('\n')
  return {
    name: 'join-start',
    async setup({ onLoad }) {
      const entryPoints = new Set(await findLateImports(source))
      onLoad({ filter: /\.ts$/ }, async ({ path: file }) => {
        if (!entryPoints.has(file)) return undefined
        return { contents: `${await readFile(file, 'utf8')}\n${imports}`, loader: 'ts' }
      })
    },
  }
}

/** The files that are imported when they are needed. */
async function findLateImports(source: string): Promise<string[]> {
  const files = (await readdir(source, { recursive: true })).filter((file) => file.endsWith('.ts'))
  const found = await Promise.all(
    files.map(async (name) => {
      const file = path.join(source, name)
      const late = (await readFile(file, 'utf8')).matchAll(/\bimport\('(\..+?)'\)/g)
      return [...late].map((match) => path.join(path.dirname(file), match[1]!))
    }),
  )
  return found.flat()
}

/** The version in its package.json. */
export async function readVersion(packageFolder: string): Promise<string> {
  const manifest = JSON.parse(await readFile(path.join(packageFolder, 'package.json'), 'utf8')) as {
    version: string
  }
  return manifest.version
}

/** The licenses of what was bundled: most ask that they go along with every copy. */
async function collectLicenses(inputs: Metafile['inputs']): Promise<string> {
  const folders = new Set(
    Object.keys(inputs).flatMap((file) => /^(.*\bnode_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? []),
  )
  const texts = await Promise.all([...folders].sort().map(readLicense))
  return texts.join(`\n${'-'.repeat(80)}\n\n`)
}

async function readLicense(folder: string): Promise<string> {
  const manifest = JSON.parse(await readFile(path.join(folder, 'package.json'), 'utf8'))
  const files = await readdir(folder)
  const file = files.find((name) => /^licen[cs]e(\.|$)/i.test(name))
  const text = file ? (await readFile(path.join(folder, file), 'utf8')).trim() : ''
  return `${manifest.name} ${manifest.version} (${manifest.license})\n\n${text}\n`
}

async function removeOldChunks(folder: string, written: ReadonlySet<string>): Promise<void> {
  const files = await readdir(folder).catch(() => [])
  for (const name of files.filter((file) => !written.has(file))) {
    const file = path.join(folder, name)
    const { mtimeMs } = await stat(file)
    if (Date.now() - mtimeMs > KEEP_OLD_CHUNKS_MS) await rm(file, { force: true })
  }
}
