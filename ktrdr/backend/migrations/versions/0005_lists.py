"""Indexes by which a page of a list costs the same, however many operations there are."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them in place of one that orders nothing."""
    for column in ("state", "strategy"):
        op.create_index(
            op.f(f"ix_operations_{column}_created_at_id"), "operations", [column, "created_at", "id"]
        )
    op.drop_index(op.f("ix_operations_state"), table_name="operations")


def downgrade() -> None:
    """Put back what was there."""
    op.create_index(op.f("ix_operations_state"), "operations", ["state"])
    for column in ("state", "strategy"):
        op.drop_index(op.f(f"ix_operations_{column}_created_at_id"), table_name="operations")
