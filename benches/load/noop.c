/*
 * What a milter in C costs that asks as much as libmilter does by default: one look-up in a list of networks, one check of the
 * size, one counter. Built and run by the scenario `libmilter`.
 *
 *     noop PORT
 */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmilter/mfapi.h>

#define ENTRIES 100000
#define MOST (25L * 1024 * 1024)

static unsigned listed[ENTRIES];
static atomic_ulong accepted;

struct message {
    long size;
};

static int compare(const void *a, const void *b)
{
    unsigned left = *(const unsigned *)a, right = *(const unsigned *)b;

    return (left > right) - (left < right);
}

/* Random networks /24, none in 10.0.0.0/8, where the clients of the load are. */
static void fill(void)
{
    unsigned state = 4711;

    for (size_t i = 0; i < ENTRIES; i++) {
        state = state * 1664525u + 1013904223u;
        listed[i] = (11 + (state >> 24) % 200) << 16 | (state >> 4 & 0xffff);
    }
    qsort(listed, ENTRIES, sizeof *listed, compare);
}

static sfsistat on_connect(SMFICTX *ctx, char *name, _SOCK_ADDR *address)
{
    struct message *message;
    unsigned network = 0;

    (void)name;
    if (address != NULL && address->sa_family == AF_INET)
        network = ntohl(((struct sockaddr_in *)address)->sin_addr.s_addr) >> 8;
    if (bsearch(&network, listed, ENTRIES, sizeof *listed, compare) != NULL)
        return SMFIS_REJECT;
    message = calloc(1, sizeof *message);
    if (message == NULL || smfi_setpriv(ctx, message) == MI_FAILURE)
        return SMFIS_TEMPFAIL;
    return SMFIS_CONTINUE;
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
    (void)ctx, (void)name;
    return SMFIS_CONTINUE;
}

static sfsistat on_mail(SMFICTX *ctx, char **arguments)
{
    struct message *message = smfi_getpriv(ctx);

    message->size = 0;
    for (; *arguments != NULL; arguments++)
        if (strncmp(*arguments, "SIZE=", 5) == 0 && atol(*arguments + 5) > MOST)
            return SMFIS_REJECT;
    return SMFIS_CONTINUE;
}

static sfsistat on_rcpt(SMFICTX *ctx, char **arguments)
{
    (void)ctx, (void)arguments;
    return SMFIS_CONTINUE;
}

static sfsistat on_step(SMFICTX *ctx)
{
    (void)ctx;
    return SMFIS_CONTINUE;
}

static sfsistat on_unknown(SMFICTX *ctx, const char *command)
{
    (void)ctx, (void)command;
    return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
    struct message *message = smfi_getpriv(ctx);

    message->size += (long)(strlen(name) + strlen(value) + 4);
    return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *data, size_t length)
{
    struct message *message = smfi_getpriv(ctx);

    (void)data;
    message->size += (long)length;
    return SMFIS_CONTINUE;
}

static sfsistat on_end(SMFICTX *ctx)
{
    struct message *message = smfi_getpriv(ctx);

    if (message->size > MOST)
        return SMFIS_REJECT;
    atomic_fetch_add(&accepted, 1);
    return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
    free(smfi_getpriv(ctx));
    smfi_setpriv(ctx, NULL);
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
    struct smfiDesc milter = {
        .xxfi_name = "noop",
        .xxfi_version = SMFI_VERSION,
        .xxfi_connect = on_connect,
        .xxfi_helo = on_helo,
        .xxfi_envfrom = on_mail,
        .xxfi_envrcpt = on_rcpt,
        .xxfi_header = on_header,
        .xxfi_eoh = on_step,
        .xxfi_body = on_body,
        .xxfi_eom = on_end,
        .xxfi_abort = on_step,
        .xxfi_close = on_close,
        .xxfi_unknown = on_unknown,
        .xxfi_data = on_step,
    };
    char place[64];

    if (argc != 2) {
        fprintf(stderr, "usage: noop PORT\n");
        return 2;
    }
    fill();
    snprintf(place, sizeof place, "inet:%s@127.0.0.1", argv[1]);
    if (smfi_register(milter) == MI_FAILURE || smfi_setconn(place) == MI_FAILURE ||
        smfi_setbacklog(4096) == MI_FAILURE || smfi_opensocket(0) == MI_FAILURE) {
        fprintf(stderr, "noop: cannot listen on %s\n", place);
        return 1;
    }
    fprintf(stderr, "listening on inet:127.0.0.1:%s\n", argv[1]);
    return smfi_main() == MI_SUCCESS ? 0 : 1;
}
