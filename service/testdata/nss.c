/* A directory of accounts for the GNU C library, which compares names without regard to case, as SSSD does for Active
 * Directory, and winbind. testdata is built by the tests and found by `getent -s`. */
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct { const char *name; uid_t uid; } users[] = {
	{"EXAMPLE\\alice", 70001}, {"Bob", 70002}, {"carol", 70003}, {"dave", 70004}, {"Dave", 70005}};
static const struct { const char *name; gid_t gid; } groups[] = {{"Domain Users", 80000}, {"staff", 80001}, {"Everybody", 80002}};
enum { many = 5000, first = 90000 }; /* groups of Bob's beside 80000 */
static char none[] = "", *nobody[] = {NULL};

static enum nss_status user(unsigned i, struct passwd *p, char *b, size_t n, int *err)
{
	if (n < 64) {
		*err = ERANGE;
		return NSS_STATUS_TRYAGAIN;
	}
	*p = (struct passwd){.pw_name = strcpy(b, users[i].name), .pw_passwd = none, .pw_uid = users[i].uid, .pw_gid = 80002,
		.pw_gecos = none, .pw_dir = none, .pw_shell = none};
	return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_altsdtest_getpwuid_r(uid_t uid, struct passwd *p, char *b, size_t n, int *err)
{
	for (unsigned i = 0; i < sizeof users / sizeof *users; i++)
		if (users[i].uid == uid)
			return user(i, p, b, n, err);
	return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_altsdtest_getpwnam_r(const char *name, struct passwd *p, char *b, size_t n, int *err)
{
	for (unsigned i = 0; i < sizeof users / sizeof *users; i++)
		if (!strcasecmp(users[i].name, name))
			return user(i, p, b, n, err);
	return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_altsdtest_getgrnam_r(const char *name, struct group *g, char *b, size_t n, int *err)
{
	for (unsigned i = 0; i < sizeof groups / sizeof *groups; i++)
		if (!strcasecmp(groups[i].name, name)) {
			*g = (struct group){.gr_name = strcpy(b, groups[i].name), .gr_passwd = none, .gr_gid = groups[i].gid, .gr_mem = nobody};
			return NSS_STATUS_SUCCESS;
		}
	return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_altsdtest_initgroups_dyn(const char *name, gid_t skip, long *start, long *size, gid_t **list, long limit, int *err)
{
	if (strcmp(name, "Bob"))
		return NSS_STATUS_NOTFOUND;
	if (*size < *start + many + 1) {
		gid_t *more = realloc(*list, (*start + many + 1) * sizeof **list);
		if (more == NULL) {
			*err = ENOMEM;
			return NSS_STATUS_TRYAGAIN;
		}
		*list = more;
		*size = *start + many + 1;
	}
	for (int i = 0; i < many; i++)
		(*list)[(*start)++] = first + i;
	(*list)[(*start)++] = 80000;
	return NSS_STATUS_SUCCESS;
}
