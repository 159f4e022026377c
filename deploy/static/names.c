/*
 * Linked into the static binary of `cargo xtask dist`. The C library looks names up with modules that /etc/nsswitch.conf lists.
 * A static program would load the modules of the machine that it runs on, which are made for that machine's C library: with any
 * other version the process ends with SIGSEGV. So it takes the two that are linked into it, as musl does: files and DNS.
 */
#include <nss.h>

__attribute__((constructor)) static void only_modules_that_are_linked_in(void)
{
    __nss_configure_lookup("hosts", "files dns");
    __nss_configure_lookup("networks", "files");
    __nss_configure_lookup("services", "files");
    __nss_configure_lookup("protocols", "files");
    __nss_configure_lookup("passwd", "files");
    __nss_configure_lookup("group", "files");
}
