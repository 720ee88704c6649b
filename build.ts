import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
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
  // some packages are CommonJS and call require for what Node has built in
  banner: {
    js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);",
  },
}

export type ProgramName = 'cli' | 'edge'

/** `node build.ts edge` builds one of them, no argument both. */
if (import.meta.main) {
  const wanted = process.argv.slice(2)
  for (const name of ['cli', 'edge'] as const) {
    if (wanted.length === 0 || wanted.includes(name)) await bundleProgram(name)
  }
}

/** @param options for builds that are not to be handed out: another folder, version, source */
export async function bundleProgram(
  name: ProgramName,
  options: { outdir?: string; version?: string; plugins?: Plugin[] } = {},
): Promise<void> {
  const packageFolder = path.join(ROOT, 'packages', name)
  const outdir = options.outdir ?? path.join(packageFolder, 'dist')
  const version = options.version ?? (await readVersion(packageFolder))
  const result = await build({
    ...SHARED_OPTIONS,
    keepNames: name === 'edge', // oidc-provider finds its settings by the names of its classes
    plugins: options.plugins ?? [],
    entryPoints: await findEntryPoints(path.join(packageFolder, 'src')),
    outdir,
    chunkNames: 'chunks/[name]-[hash]',
    define: { POSTERN_VERSION: JSON.stringify(version) },
  })
  await writeFile(path.join(outdir, 'third-party-licenses.txt'), await collectLicenses(result.metafile!))
  const written = new Set(Object.keys(result.metafile!.outputs).map((file) => path.basename(file)))
  await removeOldChunks(path.join(outdir, 'chunks'), written)
}

/** `main.ts`, and every `*-worker.ts`: a thread is loaded by its file's name, from beside the chunk that starts it. */
async function findEntryPoints(source: string): Promise<{ in: string; out: string }[]> {
  const files = await readdir(source, { recursive: true })
  const workers = files.filter((file) => file.endsWith('-worker.ts'))
  return [
    { in: path.join(source, 'main.ts'), out: 'main' },
    ...workers.map((file) => ({ in: path.join(source, file), out: `chunks/${path.basename(file, '.ts')}` })),
  ]
}

/** The version in its package.json. */
export async function readVersion(packageFolder: string): Promise<string> {
  const manifest = JSON.parse(await readFile(path.join(packageFolder, 'package.json'), 'utf8')) as {
    version: string
  }
  return manifest.version
}

/** The licenses of what was bundled: most ask that they go along with every copy. */
async function collectLicenses({ inputs }: Metafile): Promise<string> {
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
