import { type Command, Option } from 'commander'
import { stateFolder } from '../credentials/home.ts'
import { print, printable, tell, tellMore } from '../io.ts'
import { installCommands, installService, uninstallService, unitFile } from '../service-manager/install.ts'
import { quoteForShell } from '../service-manager/quote.ts'
import {
  parseServiceName,
  parseServiceSystem,
  renderService,
  type ServiceSystem,
  type UserService,
} from '../service-manager/unit.ts'

/** What the commands have in common that make a service of a command. */

export interface ServiceOptions {
  unit: string
  print?: ServiceSystem
  dryRun?: boolean
  uninstall?: boolean
}

export function addServiceOptions(command: Command, unit: string): Command {
  const conflicts = ['dryRun', 'uninstall']
  return command
    .option('--unit <name>', 'name of the service', parseServiceName, unit)
    .addOption(
      new Option('--print <system>', 'print it for systemd, launchd or windows, and change nothing')
        .argParser(parseServiceSystem)
        .conflicts(conflicts),
    )
    .addOption(
      new Option('--dry-run', 'print the unit and the commands, and change nothing').conflicts('uninstall'),
    )
    .option('--uninstall', 'end the service and take its unit away')
}

/** @param words of `postern`
 *  @param commandLine of the command that makes it */
export function describeService(
  { unit }: ServiceOptions,
  { description, words, commandLine }: { description: string; words: readonly string[]; commandLine: string },
): UserService {
  return {
    name: unit,
    description,
    command: [process.execPath, process.argv[1]!, ...words],
    stateFolder: stateFolder(),
    folder: process.cwd(),
    uninstallLine: `${commandLine} --unit ${unit} --uninstall`,
  }
}

/** @throws SERVICE_SETUP_FAILED */
export async function setUpService(options: ServiceOptions, service: UserService): Promise<void> {
  const { name } = service
  if (options.print) return print(renderService(options.print, service))
  if (options.dryRun) {
    const commands = installCommands(name).map((words) =>
      ['systemctl', ...words].map(quoteForShell).join(' '),
    )
    return print([`# ${unitFile(name)}`, renderService('systemd', service), ...commands, ''].join('\n'))
  }
  await installService(service)
  tell(`${name} runs, and comes back when you sign in to this machine`)
  tellMore(`look     systemctl --user status ${name}`)
  tellMore(`read     journalctl --user -u ${name}`)
  tellMore('stay     loginctl enable-linger: it starts with the machine, and goes on without you')
  tellMore(`remove   ${printable(service.uninstallLine)}`)
}

/** @throws SERVICE_SETUP_FAILED */
export async function removeService({ unit }: ServiceOptions): Promise<void> {
  const wasThere = await uninstallService(unit)
  tell(wasThere ? `${unit} is gone` : `there is no service ${unit}`)
}
