"""cancelq beside what a desk would otherwise take: the same venue, the same server, the same loads."""
